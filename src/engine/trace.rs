//! What a trace (`log.otlp`) says of a query: a span for the query itself, below it one for each rule that was asked, and
//! below that one for each try and for the guard's verdict.

use super::{Context, Query, snapshot::Rule};
use crate::{
    clock::Moment,
    metrics::CountedReply,
    otlp::{Span, SpanKind},
    upstream::Server,
    wire::{Name, Rcode, UpstreamQuery},
};

/// Begins the trace of a query that the cache could not answer, if it is among those that are sampled.
pub(super) fn begin(context: &Context, query: &Query) -> Option<Span> {
    let span = context.tracer.as_ref()?.begin("query", SpanKind::Server, query.received)?;
    ask(&span, &query.upstream);
    span.set("client.address", query.client.to_string());
    span.set("tidegate.transport", query.carrier.transport.label());
    Some(span)
}

/// Ends the span of a query with its reply.
pub(super) fn replied(span: &Span, reply: CountedReply, server: Option<&Server>, now: Moment) {
    span.set("dns.response_code", reply.rcode.to_string());
    span.set("tidegate.source", reply.source.label());
    if let Some(code) = reply.ede {
        span.set("tidegate.ede", code.number());
    }
    if let Some(server) = server {
        span.set("tidegate.group", server.group());
        span.set("tidegate.server", server.label());
    }
    if !matches!(reply.rcode, Rcode::NOERROR | Rcode::NXDOMAIN) {
        span.fail(reply.rcode.to_string());
    }
    span.end(now);
}

/// Begins the span of a rule's part of the answer; one that a chain leads to follows another.
pub(super) fn rule(span: &Span, rule: &Rule, query: &UpstreamQuery, follows: bool, now: Moment) -> Span {
    let span = span.child(if follows { "follow" } else { "forward" }, SpanKind::Internal, now);
    ask(&span, query);
    span.set("tidegate.rule", &*rule.name);
    span
}

/// Adds the guard's verdict on an answer.
pub(super) fn guard(span: &Span, rule: &Rule, name: &Name, verdict: &'static str, address: Option<String>) {
    let now = Moment::now();
    let span = span.child("guard", SpanKind::Internal, now);
    span.set("dns.question.name", name.to_string());
    span.set("tidegate.rule", &*rule.name);
    span.set("tidegate.guard.verdict", verdict);
    if let Some(address) = address {
        span.set("tidegate.guard.address", address);
    }
    span.end(now);
}

fn ask(span: &Span, query: &UpstreamQuery) {
    span.set("dns.question.name", query.name.to_string());
    span.set("dns.question.type", query.qtype.to_string());
}
