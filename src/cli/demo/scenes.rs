//! The scenes of `tidegate demo --script`: each does something that happens at a site, and reports whether it worked.

use std::{fmt, net::SocketAddr, thread, time::Duration};

use super::{
    Demo,
    servers::{Mode, Simulated},
    zones::{PUBLIC, SERVICES},
};
use crate::{
    cli::ask::{self, Answer, AskError},
    clock::Moment,
    upstream::{HealthState, ServerSpec},
    wire::{Class, EdeCode, Name, Rcode, RecordType, Transport, UpstreamQuery},
};

/// Time limit for an answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Time limit for any other event, generous for slow machines.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);
/// Rounds of probes that the idle scene waits for: more than it would take to find a server down.
const ROUNDS: u64 = 4;
/// The name that most scenes ask for.
const S3: &str = "s3.eu-west-1.amazonaws.com";

/// Why a scene failed.
#[derive(Debug)]
pub(super) struct SceneError(String);

impl fmt::Display for SceneError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<AskError> for SceneError {
    fn from(error: AskError) -> Self {
        Self(error.to_string())
    }
}

/// What a scene observed, or why it failed.
type SceneResult = Result<String, SceneError>;
/// A scene's title and what it does.
type TitledScene = (&'static str, fn(&Demo) -> SceneResult);

/// Every scene, in the order they are played; later ones build on what earlier ones left in the cache.
pub(super) const SCENES: [TitledScene; 16] = [
    ("an AWS service name gives the endpoint's private addresses", service_name),
    ("the same again is a hit: nobody upstream is asked", second_look_up),
    ("a name behind a vpce alias comes with its whole chain", vpce_alias),
    ("every service with an interface endpoint is private", all_services),
    ("the site's names go to the site's own DNS", site_name),
    ("an alias of the site's into AWS is followed through the AWS rule", site_alias),
    ("a service without an endpoint is refused, not leaked", guard_refuses),
    ("the VPC answers publicly, as without private DNS: nothing leaks", answers_publicly),
    ("a name that does not exist says so, and is remembered", negative),
    ("localhost is answered here, a reverse of nobody's too", special_names),
    ("nobody asks for a while: probes find every server well", idle),
    ("one inbound address is cut: no client notices", one_cut),
    ("the site's DNS is cut: AWS names do not notice", site_cut),
    ("all are cut: known names are answered from the cache, as stale", all_cut),
    ("the links are mended: fresh answers again", mended),
    ("after all that, no name of AWS has reached any other DNS", nothing_leaked),
];

fn ask_a(server: SocketAddr, name: &str) -> Result<Answer, SceneError> {
    ask_server(&ServerSpec::plain(Transport::Udp, server), name)
}

fn ask_server(server: &ServerSpec, name: &str) -> Result<Answer, SceneError> {
    let query =
        UpstreamQuery { name: self::name(name)?, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false };
    Ok(ask::ask(server, &query, TIMEOUT)?)
}

fn name(text: &str) -> Result<Name, SceneError> {
    text.parse().map_err(|error| SceneError(format!("{text}: {error}")))
}

fn expect(held: bool, saw: impl fmt::Display) -> Result<(), SceneError> {
    if held { Ok(()) } else { Err(SceneError(saw.to_string())) }
}

fn is_private(address: &str) -> bool {
    address.starts_with("10.20.")
}

/// Queries a name that must have private addresses only.
fn ask_private(demo: &Demo, name: &str) -> Result<String, SceneError> {
    let answer = ask_a(demo.tidegate, name)?;
    let addresses = answer.data(RecordType::A);
    let shown = format!("{name} {} {}", answer.rcode(), addresses.join(" "));
    expect(answer.rcode() == Rcode::NOERROR && !addresses.is_empty(), &shown)?;
    expect(addresses.iter().all(|address| is_private(address)), &shown)?;
    Ok(shown)
}

/// Does something that must not make anyone query an upstream. A hedge or a prefetch of an earlier scene may still
/// arrive, and an entry may just have expired, so it passes if it succeeds once in a few attempts.
fn without_upstream(demo: &Demo, scene: impl Fn() -> SceneResult) -> SceneResult {
    for _ in 0..5 {
        let before = demo.asked();
        let saw = scene()?;
        if demo.asked() == before {
            return Ok(saw);
        }
    }
    Err(SceneError("an upstream was asked again".to_owned()))
}

/// The extended errors of an answer, in words.
fn reasons(answer: &Answer) -> String {
    let errors = answer.extended_errors();
    let reasons = errors.iter().map(
        |(_, meaning, text)| {
            if text.is_empty() { (*meaning).to_owned() } else { format!("{meaning}: {text}") }
        },
    );
    reasons.collect::<Vec<_>>().join(", ")
}

/// Polls until a condition holds.
fn eventually(what: &str, held: impl Fn() -> bool) -> Result<Duration, SceneError> {
    let started = Moment::now();
    loop {
        let waited = Moment::now().since(started);
        if held() {
            return Ok(waited);
        }
        expect(waited < EVENT_TIMEOUT, format_args!("{what} did not come in {} s", EVENT_TIMEOUT.as_secs()))?;
        thread::sleep(Duration::from_millis(20));
    }
}

/// Whether every server is up.
fn all_up(demo: &Demo) -> bool {
    let snapshot = demo.engine.snapshot_owned();
    snapshot.groups.iter().flat_map(|group| group.servers()).all(|server| server.state() == HealthState::Up)
}

fn service_name(demo: &Demo) -> SceneResult {
    ask_private(demo, S3)
}

fn second_look_up(demo: &Demo) -> SceneResult {
    without_upstream(demo, || ask_private(demo, S3))
}

fn vpce_alias(demo: &Demo) -> SceneResult {
    let answer = ask_a(demo.tidegate, "ec2.eu-west-1.amazonaws.com")?;
    let chain = answer.data(RecordType::CNAME);
    let addresses = answer.data(RecordType::A);
    let shown = format!("{} {}", chain.join(" "), addresses.join(" "));
    let is_whole = chain.len() == 1 && chain[0].contains(".vpce.") && !addresses.is_empty();
    expect(is_whole && addresses.iter().all(|a| is_private(a)), &shown)?;
    Ok(shown)
}

fn all_services(demo: &Demo) -> SceneResult {
    for service in SERVICES {
        ask_private(demo, &format!("{service}.eu-west-1.amazonaws.com"))?;
    }
    Ok(format!("{} names", SERVICES.len()))
}

fn site_name(demo: &Demo) -> SceneResult {
    let before = demo.site.queries();
    let shown = of_the_site(demo, "intranet.corp.example")?;
    expect(demo.site.queries() > before, "the site's DNS was not asked")?;
    Ok(shown)
}

/// Queries one of the site's names.
fn of_the_site(demo: &Demo, name: &str) -> Result<String, SceneError> {
    let answer = ask_a(demo.tidegate, name)?;
    let shown = format!("{name} {} {}", answer.rcode(), answer.data(RecordType::A).join(" "));
    expect(answer.data(RecordType::A).iter().any(|address| address.starts_with("10.1.5.")), &shown)?;
    Ok(shown)
}

fn site_alias(demo: &Demo) -> SceneResult {
    let name = "files.corp.example";
    let shown = ask_private(demo, name)?;
    let snapshot = demo.engine.snapshot_owned();
    let mut servers = snapshot.groups.iter().flat_map(|group| group.servers());
    let site = servers.find(|server| server.spec().address == demo.site.address);
    let site = site.ok_or_else(|| SceneError("tidegate does not know the site's DNS".to_owned()))?;
    let itself = ask_server(site.spec(), name)?.data(RecordType::A).join(" ");
    expect(itself == PUBLIC, format_args!("the site's DNS itself says {itself}"))?;
    Ok(format!("{shown} (the site's DNS itself says {itself})"))
}

fn guard_refuses(demo: &Demo) -> SceneResult {
    refused(demo, "iam.amazonaws.com")
}

/// Queries a name that the guard must refuse.
fn refused(demo: &Demo, name: &str) -> SceneResult {
    let answer = ask_a(demo.tidegate, name)?;
    let shown = format!("{name} {} {}", answer.rcode(), reasons(&answer));
    expect(answer.rcode() == Rcode::SERVFAIL && answer.has_ede(EdeCode::Blocked), &shown)?;
    let (_, meaning, text) = answer.extended_errors().remove(0);
    Ok(format!("SERVFAIL, {meaning}: {text}"))
}

fn answers_publicly(demo: &Demo) -> SceneResult {
    let set = |mode| demo.inbound.iter().for_each(|server| server.set(mode));
    set(Mode::Public);
    let saw = refused(demo, "public.s3.eu-west-1.amazonaws.com");
    set(Mode::Normal);
    let saw = saw?;
    ask_private(demo, "private.s3.eu-west-1.amazonaws.com")?;
    Ok(saw)
}

fn negative(demo: &Demo) -> SceneResult {
    let name = "no-such-service.eu-west-1.amazonaws.com";
    let missing = || {
        let answer = ask_a(demo.tidegate, name)?;
        let shown = format!("{name} {}", answer.rcode());
        expect(answer.rcode() == Rcode::NXDOMAIN, &shown)?;
        Ok(shown)
    };
    missing()?;
    without_upstream(demo, missing)
}

fn special_names(demo: &Demo) -> SceneResult {
    without_upstream(demo, || {
        let local = ask_a(demo.tidegate, "localhost")?;
        let onion = ask_a(demo.tidegate, "example.onion")?;
        let shown = format!("localhost {}, example.onion {}", local.data(RecordType::A).join(" "), onion.rcode());
        expect(local.data(RecordType::A) == ["127.0.0.1"] && onion.rcode() == Rcode::NXDOMAIN, &shown)?;
        Ok(shown)
    })
}

/// Waits for several rounds of probes of every server, without any traffic that could replace them.
fn idle(demo: &Demo) -> SceneResult {
    let before: Vec<u64> = demo.servers().map(|server| server.probes()).collect();
    let waited = eventually("probes of every server", || {
        demo.servers().zip(&before).all(|(server, before)| server.probes() >= before + ROUNDS)
    })?;
    expect(all_up(demo), "a server that answers everything is not up")?;
    let site = of_the_site(demo, "printer.corp.example")?;
    ask_private(demo, "idle.s3.eu-west-1.amazonaws.com")?;
    Ok(format!("{ROUNDS} rounds in {:.1} s, all up; then {site}", waited.as_secs_f64()))
}

fn one_cut(demo: &Demo) -> SceneResult {
    demo.inbound[0].set(Mode::Cut);
    let mut slowest = Duration::ZERO;
    for number in 0..50 {
        let started = Moment::now();
        ask_private(demo, &format!("bucket-{number}.s3.eu-west-1.amazonaws.com"))?;
        slowest = slowest.max(Moment::now().since(started));
    }
    Ok(format!("50 new names answered, the slowest in {:.1} ms", slowest.as_secs_f64() * 1000.0))
}

fn site_cut(demo: &Demo) -> SceneResult {
    demo.site.set(Mode::Cut);
    ask_private(demo, "apart.s3.eu-west-1.amazonaws.com")
}

fn all_cut(demo: &Demo) -> SceneResult {
    demo.servers().for_each(|server| server.set(Mode::Cut));
    // The entries must expire before they can be stale.
    thread::sleep(Duration::from_secs(u64::from(demo.ttl)) + Duration::from_millis(500));
    for (name, network) in [(S3, "10.20."), ("intranet.corp.example", "10.1.5.")] {
        let answer = ask_a(demo.tidegate, name)?;
        let addresses = answer.data(RecordType::A);
        let shown = format!("{name} {} {} {}", answer.rcode(), addresses.join(" "), reasons(&answer));
        let is_known = !addresses.is_empty() && addresses.iter().all(|address| address.starts_with(network));
        expect(answer.rcode() == Rcode::NOERROR && is_known, &shown)?;
        expect(answer.has_ede(EdeCode::StaleAnswer) && answer.least_ttl() == Some(30), &shown)?;
    }
    let unknown = ask_a(demo.tidegate, "never-asked.s3.eu-west-1.amazonaws.com")?;
    let refused = format!("an unknown name: {} {}", unknown.rcode(), reasons(&unknown));
    expect(unknown.rcode() == Rcode::SERVFAIL, &refused)?;
    Ok(format!("{S3} and intranet.corp.example (Stale Answer); an unknown name gets SERVFAIL, never a public answer"))
}

fn mended(demo: &Demo) -> SceneResult {
    demo.servers().for_each(|server| server.set(Mode::Normal));
    let waited = eventually("every server", || all_up(demo))?;
    let shown = ask_private(demo, "fresh.s3.eu-west-1.amazonaws.com")?;
    of_the_site(demo, "wiki.corp.example")?;
    Ok(format!("all up after {:.1} s; {shown}", waited.as_secs_f64()))
}

fn nothing_leaked(demo: &Demo) -> SceneResult {
    let aws = name("amazonaws.com")?;
    let reached = |server: &Simulated| demo.log.has_reached(server.name, &aws);
    expect(demo.inbound.iter().all(reached), "the inbound addresses were not even asked")?;
    expect(!reached(&demo.site) && !reached(&demo.public), "a name of AWS went there")?;
    let answer = ask_a(demo.public.address, S3)?.data(RecordType::A).join(" ");
    expect(answer == PUBLIC, &answer)?;
    Ok(format!("a public DNS would have said {answer}"))
}
