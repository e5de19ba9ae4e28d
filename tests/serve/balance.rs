//! The counters add up: once nothing is in flight, each query got a response or was dropped for a reason.

use proptest::{
    prelude::{Just, ProptestConfig, Strategy, any},
    prop_oneof, proptest,
};

use crate::support::{
    config::Config,
    eventually,
    query::{Query, flag, rtype},
    records::{Fault, Reply},
    script::Script,
    tidegate::Tidegate,
    upstream::{Upstream, frame},
};

/// What happens next.
#[derive(Debug, Clone)]
enum Step {
    /// A query for a name of this kind and number.
    Udp(usize, u8),
    Tcp(usize, u8),
    /// A query over TCP whose client is gone before the response.
    GivenUp(usize, u8),
    /// Octets that are no query.
    Noise(Vec<u8>),
    NoiseOverTcp(Vec<u8>),
    /// A response, which is nothing to ask a server.
    Response,
    Reload,
    /// The upstream loses this percentage of queries.
    Losses(u32),
}

/// Kinds of names, by what happens to queries for them.
const KINDS: [&str; 8] = [
    "good.example.",
    "silent.example.",
    "noise.example.",
    "other.example.",
    "broken.example.",
    "fail.example.",
    "none.example.",
    "local.test.",
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = || (0..KINDS.len(), 0..20_u8);
    let noise = || proptest::collection::vec(any::<u8>(), 0..80);
    let step = prop_oneof![
        8 => name().prop_map(|(kind, number)| Step::Udp(kind, number)),
        4 => name().prop_map(|(kind, number)| Step::Tcp(kind, number)),
        2 => name().prop_map(|(kind, number)| Step::GivenUp(kind, number)),
        2 => noise().prop_map(Step::Noise),
        1 => noise().prop_map(Step::NoiseOverTcp),
        1 => Just(Step::Response),
        1 => Just(Step::Reload),
        1 => (0..60_u32).prop_map(Step::Losses),
    ];
    proptest::collection::vec(step, 50..150)
}

fn upstream() -> Upstream {
    let upstream = Upstream::answering("10.0.0.1");
    for (kind, reply) in [
        ("noise.example.", Reply::of([]).but(Fault::Garbage(vec![0xff; 40]))),
        ("other.example.", Reply::a("10.0.0.2").but(Fault::WrongId)),
        ("broken.example.", Reply::of([]).but(Fault::Malformed)),
        ("fail.example.", Reply::servfail()),
        ("none.example.", Reply::nxdomain(60)),
    ] {
        upstream.on_below(kind, rtype::A, reply);
    }
    upstream.on_below("silent.example.", rtype::A, Script::silence());
    upstream
}

fn play(steps: &[Step]) {
    let upstream = upstream();
    let config = Config::new()
        .section("server", "deadline = \"400ms\"")
        .section("limits", "client_qps = 400\ntcp_idle = \"1s\"")
        .upstream("site", &[&upstream], "timeout = \"150ms\"")
        .forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let (client, mut streams) = (tidegate.client(), Vec::new());
    let socket = client.socket();
    let query = |kind: usize, number: u8| Query::a(&format!("n{number}.{}", KINDS[kind])).edns();
    for step in steps {
        match step {
            Step::Udp(kind, number) => socket.send(&query(*kind, *number)),
            Step::Noise(octets) => socket.send_bytes(octets),
            Step::Response => {
                let response = query(0, 0).with(flag::QR);
                socket.send(&response);
                let mut stream = client.stream();
                stream.send(&response);
                streams.push(stream);
            }
            Step::Tcp(kind, number) => {
                let mut stream = client.stream();
                stream.send(&query(*kind, *number));
                streams.push(stream);
            }
            Step::GivenUp(kind, number) => client.stream().send(&query(*kind, *number)),
            Step::NoiseOverTcp(octets) => {
                let mut stream = client.stream();
                drop(stream.send_bytes(&frame(octets)));
                // Half a message, unless it was closed meanwhile.
                drop(stream.send_bytes(octets));
                streams.push(stream);
            }
            Step::Reload => assert!(tidegate.reload(&config)),
            Step::Losses(percent) => upstream.lose(*percent),
        }
    }
    let asked = steps.iter().filter(|step| matches!(step, Step::Udp(..) | Step::Tcp(..) | Step::Response)).count();
    let numbers = || {
        ["tidegate_queries_total", "tidegate_responses_total", "tidegate_dropped_total"]
            .map(|name| tidegate.metric(name, &[]))
    };
    let mut before = [0.0; 3];
    eventually("every query is a response or dropped, and nothing changes any more", || {
        let [queries, responses, dropped] = numbers();
        let is_settled = before == [queries, responses, dropped];
        before = [queries, responses, dropped];
        is_settled
            && queries >= f64::from(u32::try_from(asked).expect("some"))
            && (queries - responses - dropped).abs() < 0.5
    });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 6, max_shrink_iters: 2, ..ProptestConfig::default() })]
    #[test]
    fn each_query_is_a_response_or_dropped_for_a_reason(steps in steps()) {
        play(&steps);
    }
}
