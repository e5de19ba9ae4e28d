//! `log.otlp`: what a collector learns of a query, and that no collector, in whatever state, holds up an answer.

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use prost::Message;
use rstest::rstest;

use crate::support::{
    config::{Config, ONE_PATIENT_TRY},
    eventually, now,
    query::{Query, rtype},
    records::{Record, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::{Transport, Upstream},
    wait_for,
};

/// The parts of OTLP's messages that are looked at (opentelemetry/proto/trace/v1/trace.proto and others).
#[derive(Clone, PartialEq, Message)]
struct Exported {
    #[prost(message, repeated, tag = "1")]
    resource_spans: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    scope_spans: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
struct Resource {
    #[prost(message, repeated, tag = "1")]
    attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, Message)]
struct ScopeSpans {
    #[prost(message, repeated, tag = "2")]
    spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
struct Span {
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
    start: u64,
    #[prost(fixed64, tag = "8")]
    end: u64,
    #[prost(message, repeated, tag = "9")]
    attributes: Vec<KeyValue>,
    #[prost(message, optional, tag = "15")]
    status: Option<Status>,
}

#[derive(Clone, PartialEq, Message)]
struct Status {
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

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|attribute| attribute.key == key);
    match found.and_then(|attribute| attribute.value.clone()?.value) {
        Some(OneValue::Text(text)) => text,
        Some(OneValue::Flag(flag)) => flag.to_string(),
        Some(OneValue::Number(number)) => number.to_string(),
        None => String::new(),
    }
}

impl Span {
    fn get(&self, key: &str) -> String {
        text(&self.attributes, key)
    }

    fn failed(&self) -> bool {
        self.status.as_ref().is_some_and(|status| status.code == 2)
    }
}

/// A query's spans: its own first, then the others as they began.
#[derive(Debug)]
struct Trace(Vec<Span>);

impl Trace {
    fn names(&self) -> Vec<&str> {
        self.0.iter().map(|span| span.name.as_str()).collect()
    }

    #[track_caller]
    fn span(&self, name: &str) -> &Span {
        self.0.iter().find(|span| span.name == name).unwrap_or_else(|| panic!("no {name} in {:?}", self.names()))
    }

    /// The name of the span that this one is below.
    fn parent(&self, name: &str) -> &str {
        let id = &self.span(name).parent_span_id;
        self.0.iter().find(|span| span.span_id == *id).map_or("", |span| &span.name)
    }
}

/// A collector that keeps the requests it accepts.
#[derive(Clone, Default)]
struct Collector(Arc<Kept>);

#[derive(Default)]
struct Kept {
    /// Heads and bodies.
    requests: Mutex<Vec<(String, Vec<u8>)>>,
    /// The response instead of 200; none = no response.
    response: Mutex<Option<String>>,
    hangs: AtomicBool,
}

const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Type: application/x-protobuf\r\nContent-Length: 0\r\n\r\n";

impl Collector {
    /// Listens, and gives its URL.
    fn listen(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("it is bound"));
        self.serve(listener);
        url
    }

    fn serve(&self, listener: TcpListener) {
        let collector = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let collector = collector.clone();
                thread::spawn(move || collector.answer(stream));
            }
        });
    }

    fn answer(&self, stream: TcpStream) -> io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.expect("a request says how long it is")];
        reader.read_exact(&mut body)?;
        if self.0.hangs.load(SeqCst) {
            self.0.requests.lock().expect("no holder panics").push((head, Vec::new()));
            return io::copy(&mut reader, &mut io::sink()).map(drop);
        }
        let response = self.0.response.lock().expect("no holder panics").clone();
        let body = if response.is_some() { Vec::new() } else { body };
        self.0.requests.lock().expect("no holder panics").push((head, body));
        reader.get_mut().write_all(response.as_deref().unwrap_or(GOOD).as_bytes())
    }

    fn says(&self, response: Option<String>) {
        *self.0.response.lock().expect("no holder panics") = response;
    }

    fn requests(&self) -> Vec<(String, Vec<u8>)> {
        self.0.requests.lock().expect("no holder panics").clone()
    }

    fn spans(&self) -> Vec<Span> {
        let exported = self.requests().into_iter().map(|(_, body)| Exported::decode(&*body).expect("protobuf"));
        let scopes = exported.flat_map(|request| request.resource_spans).flat_map(|resource| resource.scope_spans);
        scopes.flat_map(|scope| scope.spans).collect()
    }

    /// The trace of the first query for this name.
    fn find(&self, name: &str) -> Option<Trace> {
        let spans = self.spans();
        let id =
            spans.iter().find(|span| span.name == "query" && span.get("dns.question.name") == name)?.trace_id.clone();
        Some(Trace(spans.into_iter().filter(|span| span.trace_id == id).collect()))
    }

    #[track_caller]
    fn trace(&self, name: &str) -> Trace {
        wait_for("the trace", || self.find(name))
    }
}

fn to(url: &str) -> String {
    format!("otlp = {url:?}")
}

#[test]
fn a_miss_is_a_trace_of_its_tries_and_its_follow_up_and_its_guard() {
    let (site, vpc) = (Upstream::start(), Upstream::start());
    site.on("www.corp.example.", rtype::A, Reply::of([Record::cname("@", 300, "db.aws.example.")]));
    vpc.on_transport("db.aws.example.", rtype::A, Transport::Udp, Reply::a("10.20.0.1").truncated());
    vpc.on_transport("db.aws.example.", rtype::A, Transport::Tcp, Reply::a("10.20.0.1"));
    let collector = Collector::default();
    let config = Config::new()
        .section("log", &to(&collector.listen()))
        .upstream("site", &[&site], ONE_PATIENT_TRY)
        .upstream("vpc", &[&vpc], ONE_PATIENT_TRY)
        .forward("everything", &["."], "site", "")
        .forward("aws", &["aws.example"], "vpc", "private = [\"10.20.0.0/16\"]\non_public = \"refuse\"");
    let tidegate = Tidegate::start(&config);
    let answer = tidegate.client().ask(&Query::a("www.corp.example.").edns());
    assert_eq!(answer.address_texts(), ["10.20.0.1"]);

    let trace = collector.trace("www.corp.example.");
    assert_eq!(trace.names(), ["query", "forward", "try", "follow", "try", "tcp retry", "guard"]);
    let of = |name: &str, keys: &[&str]| keys.iter().map(|key| trace.span(name).get(key)).collect::<Vec<_>>();
    let query = ["dns.question.type", "dns.response_code", "client.address", "tidegate.transport", "tidegate.source"];
    assert_eq!(of("query", &query), ["A", "NOERROR", "127.0.0.1", "udp", "upstream"]);
    assert_eq!(of("follow", &["dns.question.name", "tidegate.rule"]), ["db.aws.example.", "aws"]);
    let retry = ["server.address", "server.port", "network.transport", "tidegate.group", "tidegate.result"];
    assert_eq!(of("tcp retry", &retry), ["127.0.0.1", &vpc.address.port().to_string(), "tcp", "vpc", "ok"]);
    assert_eq!(trace.0[4].get("tidegate.result"), "truncated");
    assert_eq!(of("guard", &["tidegate.rule", "tidegate.guard.verdict"]), ["aws", "pass"]);
    assert_eq!((trace.parent("query"), trace.parent("forward"), trace.parent("try")), ("", "query", "forward"));
    assert_eq!(
        (trace.parent("follow"), trace.parent("tcp retry"), trace.parent("guard")),
        ("query", "follow", "follow")
    );
    let kinds: Vec<i32> = trace.0.iter().map(|span| span.kind).collect();
    assert_eq!(kinds, [2, 1, 3, 1, 3, 3, 1]);
    for span in &trace.0 {
        let root = trace.span("query");
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
        assert!(root.start <= span.start && span.start <= span.end && span.end <= root.end, "{span:?} in {root:?}");
        assert!(!span.failed(), "{span:?}");
    }
    let clock = u64::try_from(tidegate::clock::wall().as_nanos()).expect("this century");
    assert!(trace.span("query").start.abs_diff(clock) < 60_000_000_000, "nanoseconds since 1970");

    let (head, body) = collector.requests().remove(0);
    assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/x-protobuf\r\n"), "{head}");
    let exported = Exported::decode(&*body).expect("protobuf");
    let resource = exported.resource_spans[0].resource.clone().expect("a resource");
    assert_eq!(text(&resource.attributes, "service.name"), "tidegate");
    assert_eq!(text(&resource.attributes, "service.version"), env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_failure_and_a_refusal_say_what_went_wrong_and_a_hit_is_no_trace() {
    let (broken, vpc) = (Upstream::start(), Upstream::start());
    broken.on_type(rtype::A, Reply::servfail());
    vpc.on("www.aws.example.", rtype::A, Reply::a("52.1.2.3"));
    vpc.on("good.aws.example.", rtype::A, Reply::a("10.20.0.1"));
    let collector = Collector::default();
    let config = Config::new()
        .section("log", &to(&collector.listen()))
        .upstream("site", &[&broken], ONE_PATIENT_TRY)
        .upstream("vpc", &[&vpc], ONE_PATIENT_TRY)
        .forward("everything", &["."], "site", "")
        .forward("aws", &["aws.example"], "vpc", "private = [\"10.20.0.0/16\"]\non_public = \"refuse\"");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    client.ask(&Query::a("good.aws.example."));
    let hits = tidegate.hits();
    client.ask(&Query::a("good.aws.example."));
    assert!(tidegate.hits() > hits, "the second time from the cache");
    client.ask(&Query::a("www.example.").edns());
    client.ask(&Query::a("www.aws.example.").edns());

    let refused = collector.trace("www.aws.example.");
    let guard = refused.span("guard");
    assert_eq!([guard.get("tidegate.guard.verdict"), guard.get("tidegate.guard.address")], ["refuse", "52.1.2.3"]);
    let failed = collector.trace("www.example.");
    assert_eq!([failed.span("try").get("tidegate.result"), failed.span("try").get("error.type")], ["servfail"; 2]);
    let query = failed.span("query");
    assert_eq!([query.get("dns.response_code"), query.get("tidegate.ede")], ["SERVFAIL", "22"]);
    assert!(failed.span("try").failed() && query.failed() && refused.span("query").failed());
    let spans = collector.spans();
    let good = spans.iter().filter(|span| span.name == "query" && span.get("dns.question.name") == "good.aws.example.");
    assert_eq!(good.count(), 1);
}

/// A server that turns slow is hedged once its usual time is known.
#[test]
fn a_second_try_and_a_hedge_are_named() {
    let (one, two) = (Upstream::answering("10.0.0.1"), Upstream::answering("10.0.0.1"));
    let collector = Collector::default();
    let config = Config::new()
        .section("log", &to(&collector.listen()))
        .upstream("site", &[&one, &two], "hedge_budget = 1.0\npolicy = \"spread\"")
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    (0..40).for_each(|number| drop(client.ask(&Query::a(&format!("warm{number}.example.")))));
    one.on_type(rtype::A, Script::late(Duration::from_millis(300), Reply::a("10.0.0.1")));
    let mut number = 0;
    eventually("a hedge", || {
        number += 1;
        client.ask(&Query::a(&format!("late{number}.example.")));
        collector.spans().iter().any(|span| span.name == "hedge" && span.kind == 3)
    });
    one.on_type(rtype::A, Reply::servfail());
    eventually("a retry", || {
        number += 1;
        client.ask(&Query::a(&format!("bad{number}.example.")));
        collector.spans().iter().any(|span| span.name == "retry")
    });
}

#[rstest]
#[case::bad_request("400 Bad Request", true)]
#[case::not_found("404 Not Found", true)]
#[case::server_error("500 Internal Server Error", true)]
#[case::unavailable("503 Service Unavailable", false)]
#[case::too_many("429 Too Many Requests", false)]
fn a_collector_that_refuses_changes_no_answer_and_is_one_line(#[case] status: &str, #[case] drops: bool) {
    let upstream = Upstream::answering("10.0.0.1");
    let collector = Collector::default();
    collector.says(Some(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n")));
    let config = Config::forwarding_to(&[&upstream]).section("log", &to(&collector.listen()));
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    let mut number = 0;
    eventually("three attempts", || {
        number += 1;
        assert_eq!(client.ask(&Query::a(&format!("n{number}.example."))).address_texts(), ["10.0.0.1"]);
        collector.requests().len() >= 3
    });
    tidegate.logged_once("WARN", "no traces reach");
    assert!(tidegate.logged("WARN", "no traces reach")[0].contains(status), "{:?}", tidegate.log());
    let dropped = || tidegate.metric("tidegate_log_dropped_total", &[("sink", "otlp")]);
    if drops {
        assert!(dropped() > 0.0);
        return;
    }
    // The same traces are sent again, once it takes them.
    collector.says(None);
    collector.trace("n1.example.");
    tidegate.await_logged("INFO", "traces go to");
}

#[test]
fn a_collector_that_is_not_there_gets_the_traces_once_it_is() {
    let upstream = Upstream::answering("10.0.0.1");
    let port = crate::support::peers::free_port();
    let config = Config::forwarding_to(&[&upstream]).section("log", &to(&format!("http://127.0.0.1:{port}")));
    let tidegate = Tidegate::start(&config);
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    tidegate.await_logged("WARN", "no traces reach");
    let collector = Collector::default();
    collector.serve(TcpListener::bind(("127.0.0.1", port)).expect("the port is still free"));
    collector.trace("www.example.");
}

#[test]
fn a_collector_that_hangs_holds_up_no_answer_and_no_stop() {
    let upstream = Upstream::answering("10.0.0.1");
    let collector = Collector::default();
    collector.0.hangs.store(true, SeqCst);
    let config = Config::forwarding_to(&[&upstream]).section("log", &to(&collector.listen()));
    let tidegate = Tidegate::start(&config);
    let client = tidegate.client();
    client.ask(&Query::a("first.example."));
    eventually("a request without a response", || !collector.requests().is_empty());
    for number in 0..50 {
        assert_eq!(client.ask(&Query::a(&format!("n{number}.example."))).address_texts(), ["10.0.0.1"]);
    }
    let stop = now();
    assert!(tidegate.stop().success());
    assert!(stop.elapsed() < Duration::from_secs(10), "{:?}", stop.elapsed());
}
