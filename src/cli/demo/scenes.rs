//! The scenes of `tidegate demo --script`: each does something a site would see, and says whether it held.

use std::{fmt, net::SocketAddr, thread, time::Duration};

use super::{Stage, TTL};
use crate::{
    cli::ask::{self, Answer, AskError},
    clock::Moment,
    upstream::{ServerSpec, Transport},
    wire::{Class, EdeCode, Rcode, RecordType, UpstreamQuery},
};

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why a scene did not hold.
#[derive(Debug)]
pub(super) struct Broken(String);

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<AskError> for Broken {
    fn from(error: AskError) -> Self {
        Self(error.to_string())
    }
}

/// What a scene saw, or why it did not hold.
type Scene = Result<String, Broken>;
/// A scene's title and what it does.
type Titled = (&'static str, fn(&Stage) -> Scene);

/// Every scene, in the order they are played; later ones build on what earlier ones left in the cache.
pub(super) const SCENES: [Titled; 12] = [
    ("an AWS service name gives the endpoint's private addresses", service_name),
    ("the same again is a hit: nobody upstream is asked", second_look_up),
    ("a name behind a vpce alias comes with its whole chain", vpce_alias),
    ("every service with an interface endpoint is private", all_services),
    ("corporate names go to the site's own DNS", corporate_name),
    ("a corporate alias into AWS is followed through the AWS rule", corporate_alias),
    ("a service without an endpoint is refused, not leaked", guard_refuses),
    ("a name that does not exist says so, and is remembered", negative),
    ("localhost is answered here, a reverse of nobody's too", special_names),
    ("one inbound address is cut: no client notices", one_cut),
    ("both are cut: known names are answered from the cache, as stale", all_cut),
    ("the link is mended: fresh answers again", mended),
];

pub(super) fn ask_a(server: SocketAddr, name: &str) -> Result<Answer, Broken> {
    let name = name.parse().map_err(|error| Broken(format!("{name}: {error}")))?;
    let query = UpstreamQuery { name, qtype: RecordType::A, qclass: Class::IN, do_bit: false, cd: false };
    Ok(ask::ask(&ServerSpec::plain(Transport::Udp, server), &query, PATIENCE)?)
}

fn expect(held: bool, saw: impl fmt::Display) -> Result<(), Broken> {
    if held { Ok(()) } else { Err(Broken(saw.to_string())) }
}

fn is_private(address: &str) -> bool {
    address.starts_with("10.20.")
}

/// Asks for a name that must have private addresses only.
fn private(stage: &Stage, name: &str) -> Result<String, Broken> {
    let answer = ask_a(stage.tidegate, name)?;
    let addresses = answer.data(RecordType::A);
    let shown = format!("{name} {} {}", answer.rcode(), addresses.join(" "));
    expect(answer.rcode() == Rcode::NOERROR && !addresses.is_empty(), &shown)?;
    expect(addresses.iter().all(|address| is_private(address)), &shown)?;
    Ok(shown)
}

fn service_name(stage: &Stage) -> Scene {
    private(stage, "s3.eu-west-1.amazonaws.com")
}

fn second_look_up(stage: &Stage) -> Scene {
    let before = stage.asked();
    let shown = private(stage, "s3.eu-west-1.amazonaws.com")?;
    expect(stage.asked() == before, "an upstream was asked again")?;
    Ok(shown)
}

fn vpce_alias(stage: &Stage) -> Scene {
    let answer = ask_a(stage.tidegate, "ec2.eu-west-1.amazonaws.com")?;
    let chain = answer.data(RecordType::CNAME);
    let addresses = answer.data(RecordType::A);
    let shown = format!("{} {}", chain.join(" "), addresses.join(" "));
    expect(chain.len() == 1 && chain[0].contains(".vpce.") && addresses.iter().all(|a| is_private(a)), &shown)?;
    Ok(shown)
}

fn all_services(stage: &Stage) -> Scene {
    for service in super::SERVICES {
        private(stage, &format!("{service}.eu-west-1.amazonaws.com"))?;
    }
    Ok(format!("{} names", super::SERVICES.len()))
}

fn corporate_name(stage: &Stage) -> Scene {
    let before = stage.corporate.questions();
    let answer = ask_a(stage.tidegate, "intranet.corp.example")?;
    let shown = answer.data(RecordType::A).join(" ");
    expect(shown == "10.1.5.10" && stage.corporate.questions() > before, &shown)?;
    Ok(shown)
}

fn corporate_alias(stage: &Stage) -> Scene {
    let answer = ask_a(stage.tidegate, "files.corp.example")?;
    let addresses = answer.data(RecordType::A);
    let shown = addresses.join(" ");
    expect(!addresses.is_empty() && addresses.iter().all(|address| is_private(address)), &shown)?;
    Ok(format!("{shown} (the corporate server itself said {})", super::PUBLIC))
}

fn guard_refuses(stage: &Stage) -> Scene {
    let answer = ask_a(stage.tidegate, "iam.amazonaws.com")?;
    let shown = format!("{} {:?}", answer.rcode(), answer.extended_errors());
    expect(answer.rcode() == Rcode::SERVFAIL && answer.has_ede(EdeCode::Blocked), &shown)?;
    let (_, meaning, text) = answer.extended_errors().remove(0);
    Ok(format!("SERVFAIL, {meaning}: {text}"))
}

fn negative(stage: &Stage) -> Scene {
    let name = "no-such-service.eu-west-1.amazonaws.com";
    let answer = ask_a(stage.tidegate, name)?;
    let before = stage.asked();
    let again = ask_a(stage.tidegate, name)?;
    let shown = format!("{} then {}", answer.rcode(), again.rcode());
    expect(answer.rcode() == Rcode::NXDOMAIN && again.rcode() == Rcode::NXDOMAIN, &shown)?;
    expect(stage.asked() == before, "an upstream was asked again")?;
    Ok(shown)
}

fn special_names(stage: &Stage) -> Scene {
    let before = stage.asked();
    let local = ask_a(stage.tidegate, "localhost")?;
    let onion = ask_a(stage.tidegate, "example.onion")?;
    let shown = format!("localhost {}, example.onion {}", local.data(RecordType::A).join(" "), onion.rcode());
    expect(local.data(RecordType::A) == ["127.0.0.1"] && onion.rcode() == Rcode::NXDOMAIN, &shown)?;
    expect(stage.asked() == before, "an upstream was asked")?;
    Ok(shown)
}

fn one_cut(stage: &Stage) -> Scene {
    stage.inbound[0].cut();
    let mut slowest = Duration::ZERO;
    for number in 0..50 {
        let started = Moment::now();
        private(stage, &format!("bucket-{number}.s3.eu-west-1.amazonaws.com"))?;
        slowest = slowest.max(Moment::now().since(started));
    }
    Ok(format!("50 new names answered, the slowest in {:.1} ms", slowest.as_secs_f64() * 1000.0))
}

fn all_cut(stage: &Stage) -> Scene {
    stage.inbound.iter().for_each(super::Simulated::cut);
    let warm = "s3.eu-west-1.amazonaws.com";
    // The entries' short life must be over before they can be stale.
    thread::sleep(Duration::from_secs(u64::from(TTL) + 1));
    let answer = ask_a(stage.tidegate, warm)?;
    let addresses = answer.data(RecordType::A);
    let shown = format!("{warm} {} {} {:?}", answer.rcode(), addresses.join(" "), answer.extended_errors());
    expect(answer.rcode() == Rcode::NOERROR && addresses.iter().all(|a| is_private(a)), &shown)?;
    expect(answer.has_ede(EdeCode::StaleAnswer) && answer.least_ttl() == Some(30), &shown)?;
    let unknown = ask_a(stage.tidegate, "never-asked.s3.eu-west-1.amazonaws.com")?;
    let refused = format!("an unknown name: {} {:?}", unknown.rcode(), unknown.extended_errors());
    expect(unknown.rcode() == Rcode::SERVFAIL, &refused)?;
    Ok(format!("{} (Stale Answer); an unknown name gets SERVFAIL, never a public answer", addresses.join(" ")))
}

fn mended(stage: &Stage) -> Scene {
    stage.inbound.iter().for_each(super::Simulated::mend);
    let until = Moment::now() + Duration::from_secs(10);
    let mut last = String::new();
    for number in 0.. {
        let answer = ask_a(stage.tidegate, &format!("fresh-{number}.s3.eu-west-1.amazonaws.com"))?;
        if answer.rcode() == Rcode::NOERROR {
            return Ok(format!("fresh-{number} {}", answer.data(RecordType::A).join(" ")));
        }
        last = answer.rcode().to_string();
        if Moment::now() > until {
            break;
        }
        thread::sleep(Duration::from_millis(100));
    }
    Err(Broken(format!("still {last} ten seconds later")))
}
