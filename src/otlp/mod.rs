//! OTLP: sampled traces of queries that the cache could not answer, for an OpenTelemetry collector (OTLP 1.x over HTTP,
//! <https://opentelemetry.io/docs/specs/otlp/>).
//!
//! - A [`Tracer`] begins a trace for at most `MOST_A_SECOND` queries a second in the whole process: a quiet site sees
//!   every miss, a flood costs no more than that. A hit is never traced.
//! - The query's path adds [`Span`]s. When the last of a trace's spans is dropped, the trace goes into a bounded queue,
//!   or is counted as dropped. Nothing waits.
//! - [`OtlpExporter`] is the thread that sends them.
//!
//! Attributes are named by OpenTelemetry's semantic conventions where these have a name, and begin with `tidegate.`
//! where they have none.

#![cfg_attr(not(feature = "otlp"), allow(dead_code, reason = "nobody reads traces where there is no exporter"))]

#[cfg(not(feature = "otlp"))]
mod absent;
#[cfg(feature = "otlp")]
mod exporter;
#[cfg(feature = "otlp")]
mod message;
mod target;

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use tokio::sync::mpsc::{Receiver, Sender, channel};

#[cfg(not(feature = "otlp"))]
pub use self::absent::NoExporter as OtlpExporter;
#[cfg(feature = "otlp")]
pub use self::exporter::OtlpExporter;
pub use self::target::{OtlpTarget, TargetError};
use crate::clock::Moment;

/// Traces begun a second.
const MOST_A_SECOND: u64 = 100;
/// Traces that wait for the collector.
const MOST_TRACES: usize = 512;
/// Spans of one trace; further ones are left out.
const MOST_SPANS: usize = 64;

/// What a span is to the trace (`SpanKind`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpanKind {
    /// A step inside this process.
    Internal = 1,
    /// A client's query.
    Server = 2,
    /// A query to an upstream.
    Client = 3,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A number.
    Number(i64),
    /// Yes or no.
    Flag(bool),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

/// Begins traces. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Tracer {
    queue: Sender<FinishedTrace>,
    load: Arc<Load>,
}

/// What was begun and what was dropped.
#[derive(Debug, Default)]
struct Load {
    /// The second of the newest trace, and how many were begun in it.
    begun: AtomicU64,
    dropped: AtomicU64,
}

/// A trace on its way to the collector.
#[derive(Debug)]
struct FinishedTrace {
    id: [u8; 16],
    spans: Vec<SpanRecord>,
}

#[derive(Debug)]
struct SpanRecord {
    id: [u8; 8],
    parent: Option<[u8; 8]>,
    name: &'static str,
    kind: SpanKind,
    start: Moment,
    end: Option<Moment>,
    attributes: Vec<(&'static str, Value)>,
    /// Whether it has failed; `error.type` says why.
    is_error: bool,
}

impl Tracer {
    /// A tracer, and the end of its queue that is read.
    fn new() -> (Self, Receiver<FinishedTrace>) {
        let (queue, finished) = channel(MOST_TRACES);
        (Self { queue, load: Arc::default() }, finished)
    }

    /// Begins a trace with its first span, if this query is among those that are sampled.
    pub fn begin(&self, name: &'static str, kind: SpanKind, now: Moment) -> Option<Span> {
        if !self.load.takes(u64::from(now.whole_seconds())) {
            return None;
        }
        let trace = Trace { tracer: self.clone(), id: rand::random(), spans: RefCell::default() };
        Some(Rc::new(trace).add(None, name, kind, now))
    }

    /// How many spans no collector got.
    pub fn dropped(&self) -> u64 {
        self.load.dropped.load(Relaxed)
    }
}

impl Load {
    /// Whether one more trace may begin in this second.
    fn takes(&self, second: u64) -> bool {
        let next = |begun: u64| match begun >> 32 {
            last if last != second => Some(second << 32 | 1),
            _ if begun & 0xffff_ffff < MOST_A_SECOND => Some(begun + 1),
            _ => None,
        };
        self.begun.fetch_update(Relaxed, Relaxed, next).is_ok()
    }

    fn count_dropped(&self, spans: usize) {
        self.dropped.fetch_add(u64::try_from(spans).unwrap_or(0), Relaxed);
    }
}

/// A trace that is being written. It is sent when its last [`Span`] is dropped.
struct Trace {
    tracer: Tracer,
    id: [u8; 16],
    spans: RefCell<Vec<SpanRecord>>,
}

impl Trace {
    fn add(self: Rc<Self>, parent: Option<usize>, name: &'static str, kind: SpanKind, start: Moment) -> Span {
        let at = {
            let mut spans = self.spans.borrow_mut();
            let parent = parent.and_then(|at| spans.get(at)).map(|parent| parent.id);
            if spans.len() < MOST_SPANS {
                let (id, attributes) = (rand::random(), Vec::new());
                spans.push(SpanRecord { id, parent, name, kind, start, end: None, attributes, is_error: false });
                spans.len() - 1
            } else {
                MOST_SPANS
            }
        };
        Span { trace: self, at }
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        let mut spans = self.spans.take();
        // What still ran when the answer was there ends with the trace.
        let last = spans.iter().map(|span| span.end.unwrap_or(span.start)).max().unwrap_or_default();
        for span in &mut spans {
            span.end.get_or_insert(last);
        }
        let count = spans.len();
        if self.tracer.queue.try_send(FinishedTrace { id: self.id, spans }).is_err() {
            self.tracer.load.count_dropped(count);
        }
    }
}

/// A span of a trace. Clones are the same span.
#[derive(Clone)]
pub struct Span {
    trace: Rc<Trace>,
    at: usize,
}

impl Span {
    /// Begins a span below this one.
    pub fn child(&self, name: &'static str, kind: SpanKind, now: Moment) -> Self {
        Rc::clone(&self.trace).add(Some(self.at), name, kind, now)
    }

    /// Adds an attribute.
    pub fn set(&self, key: &'static str, value: impl Into<Value>) {
        self.change(|span| span.attributes.push((key, value.into())));
    }

    /// Marks it as failed, for a reason that has few values.
    pub fn fail(&self, reason: impl Into<Value>) {
        self.set("error.type", reason);
        self.change(|span| span.is_error = true);
    }

    /// Ends it. A second call changes nothing.
    pub fn end(&self, now: Moment) {
        self.change(|span| span.end = span.end.or(Some(now)));
    }

    fn change(&self, change: impl FnOnce(&mut SpanRecord)) {
        // One that was left out has no record.
        if let Some(span) = self.trace.spans.borrow_mut().get_mut(self.at) {
            change(span);
        }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Span").field("at", &self.at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Moment = Moment::at(Duration::from_secs(100));

    #[test]
    fn a_second_has_a_bounded_number_of_traces() {
        let (tracer, _finished) = Tracer::new();
        let begun = |now| (0..500).filter(|_| tracer.begin("query", SpanKind::Server, now).is_some()).count();
        assert_eq!(begun(NOW), 100);
        assert_eq!(begun(NOW + Duration::from_millis(999)), 0, "the same second");
        assert_eq!(begun(NOW + Duration::from_secs(1)), 100);
    }

    #[test]
    fn a_trace_goes_out_when_its_last_span_is_dropped_and_every_span_has_an_end() {
        let (tracer, mut finished) = Tracer::new();
        let query = tracer.begin("query", SpanKind::Server, NOW).unwrap();
        let first = query.child("try", SpanKind::Client, NOW + Duration::from_millis(1));
        query.end(NOW + Duration::from_millis(5));
        query.end(NOW + Duration::from_millis(9));
        drop(query);
        assert!(finished.try_recv().is_err(), "a try is under way");
        drop(first);
        let FinishedTrace { spans, .. } = finished.try_recv().unwrap();
        assert_eq!(spans[1].parent, Some(spans[0].id));
        let ends = spans.iter().map(|span| span.end.unwrap().since(NOW).as_millis());
        assert_eq!(ends.collect::<Vec<_>>(), [5, 5]);
    }

    #[test]
    fn a_full_queue_and_a_long_trace_are_bounded_and_never_wait() {
        let (tracer, mut finished) = Tracer::new();
        for second in 0..6 {
            let now = NOW + Duration::from_secs(second);
            (0..100).for_each(|_| drop(tracer.begin("query", SpanKind::Server, now)));
        }
        assert_eq!(tracer.dropped(), 600 - MOST_TRACES as u64);
        while finished.try_recv().is_ok() {}
        let query = tracer.begin("query", SpanKind::Server, NOW + Duration::from_mins(1)).unwrap();
        let children: Vec<_> = (0..200).map(|_| query.child("try", SpanKind::Client, NOW)).collect();
        children.iter().for_each(|child| child.fail("timeout"));
        drop((query, children));
        assert_eq!(finished.try_recv().unwrap().spans.len(), MOST_SPANS);
    }
}
