//! Spans of a trace: one for each query that is sent to a server.

use super::{Cause, Run, Try};
use crate::{
    clock::Moment,
    otlp::SpanKind,
    upstream::race::{EdnsUse, Outcome},
    wire::Transport,
};

impl Run<'_> {
    /// Begins the span of a try's next leg.
    pub(super) fn begin_span(&mut self, slot: usize, now: Moment) {
        let Some(parent) = &self.span else { return };
        let t = &self.tries[slot];
        let span = parent.child(self.name_of(slot), SpanKind::Client, now);
        let server = &t.link.server;
        let address = server.spec().address;
        span.set("server.address", address.ip().to_string());
        span.set("server.port", address.port());
        span.set("network.transport", if is_over_udp(t.transport) { "udp" } else { "tcp" });
        span.set("tidegate.transport", t.transport.label());
        span.set("tidegate.group", server.group());
        span.set("tidegate.server", server.label());
        span.set("tidegate.edns", t.edns == EdnsUse::With);
        self.tries[slot].span = Some(span);
    }

    /// Why a leg is sent.
    fn name_of(&self, slot: usize) -> &'static str {
        let t = &self.tries[slot];
        match t.cause {
            _ if t.is_check => "case check",
            _ if t.leg > 0 && t.transport != t.link.server.spec().transport => "tcp retry",
            _ if t.leg > 0 && t.is_plain => "retry without EDNS",
            _ if t.leg > 0 => "reconnect",
            Cause::Hedge => "hedge",
            Cause::Turn if slot > 0 => "retry",
            Cause::Turn => "try",
        }
    }
}

impl Try {
    /// Ends the span of its newest leg.
    pub(super) fn end_span(&self, outcome: &Outcome, now: Moment) {
        let Some(span) = &self.span else { return };
        let result = match outcome {
            Outcome::Truncated => "truncated",
            Outcome::Closed => "closed",
            Outcome::NotSent => "not sent",
            Outcome::CaseChanged(_) => "case changed",
            outcome => outcome.result().label(),
        };
        span.set("tidegate.result", result);
        match outcome {
            Outcome::Answer(response) => span.set("dns.response_code", response.rcode().to_string()),
            Outcome::Truncated | Outcome::CaseChanged(_) => {}
            _ => span.fail(result),
        }
        span.end(now);
    }
}

const fn is_over_udp(transport: Transport) -> bool {
    matches!(transport, Transport::Udp | Transport::Quic)
}
