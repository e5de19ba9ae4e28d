//! The messages of OTLP that we write and read, by hand: `opentelemetry-proto` brings OpenTelemetry's SDK along, a dozen
//! crates for these few fields. They are those of opentelemetry/proto/{collector/trace,trace,common,resource}/v1.

use std::time::Duration;

use prost::Message;

use super::{FinishedTrace, SpanRecord, Value};
use crate::clock::Moment;

/// `Status.StatusCode.STATUS_CODE_ERROR`
const STATUS_ERROR: i32 = 2;

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceRequest {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<ProtoResource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoResource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    scope: Option<ProtoScope>,
    #[prost(message, repeated, tag = "2")]
    spans: Vec<ProtoSpan>,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoScope {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    version: String,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoSpan {
    #[prost(bytes = "vec", tag = "1")]
    trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    span_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    name: String,
    #[prost(int32, tag = "6")]
    kind: i32,
    #[prost(fixed64, tag = "7")]
    start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<ProtoStatus>,
}

#[derive(Clone, PartialEq, Message)]
struct ProtoStatus {
    #[prost(int32, tag = "3")]
    code: i32,
}

#[derive(Clone, PartialEq, Message)]
struct KeyValue {
    #[prost(string, tag = "1")]
    key: String,
    #[prost(message, optional, tag = "2")]
    value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct AnyValue {
    #[prost(oneof = "OneValue", tags = "1, 2, 3")]
    value: Option<OneValue>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum OneValue {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(bool, tag = "2")]
    Flag(bool),
    #[prost(int64, tag = "3")]
    Number(i64),
}

#[derive(Clone, PartialEq, Message)]
struct ExportTraceServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
}

/// Who sends: attributes of the resource, and the version of the program.
#[derive(Debug)]
pub(super) struct OtlpIdentity {
    pub(super) host: Option<String>,
    pub(super) version: String,
}

/// A request to export these traces. `wall` and `now` are the same time on both clocks.
pub(super) fn encode(traces: Vec<FinishedTrace>, identity: &OtlpIdentity, clocks: (Duration, Moment)) -> Vec<u8> {
    let mut attributes = vec![
        key_value("service.name", Value::from("tidegate")),
        key_value("service.version", Value::from(&*identity.version)),
    ];
    attributes.extend(identity.host.as_deref().map(|host| key_value("host.name", host.into())));
    let spans = traces
        .into_iter()
        .flat_map(|FinishedTrace { id, spans }| spans.into_iter().map(move |span| span_of(id, span, clocks)));
    let scope = ProtoScope { name: "tidegate".to_owned(), version: identity.version.clone() };
    let scope_spans = vec![ScopeSpans { scope: Some(scope), spans: spans.collect() }];
    let resource_spans = vec![ResourceSpans { resource: Some(ProtoResource { attributes }), scope_spans }];
    ExportTraceServiceRequest { resource_spans }.encode_to_vec()
}

/// How many spans the collector did not take, as its response to a request says.
pub(super) fn rejected(response: &[u8]) -> usize {
    let response = ExportTraceServiceResponse::decode(response).ok();
    let rejected = response.and_then(|response| response.partial_success).map_or(0, |part| part.rejected_spans);
    usize::try_from(rejected).unwrap_or(0)
}

fn span_of(trace: [u8; 16], span: SpanRecord, (wall, now): (Duration, Moment)) -> ProtoSpan {
    let at = |moment: Moment| {
        let time = wall.saturating_sub(now.since(moment));
        u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
    };
    ProtoSpan {
        trace_id: trace.to_vec(),
        span_id: span.id.to_vec(),
        parent_span_id: span.parent.map(|parent| parent.to_vec()).unwrap_or_default(),
        name: span.name.to_owned(),
        kind: span.kind as i32,
        start_time_unix_nano: at(span.start),
        end_time_unix_nano: at(span.end.unwrap_or(span.start)),
        attributes: span.attributes.into_iter().map(|(key, value)| key_value(key, value)).collect(),
        status: span.is_error.then_some(ProtoStatus { code: STATUS_ERROR }),
    }
}

fn key_value(key: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => OneValue::Text(text),
        Value::Number(number) => OneValue::Number(number),
        Value::Flag(flag) => OneValue::Flag(flag),
    };
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }) }
}
