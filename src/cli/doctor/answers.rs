//! Checks the answers of a server: whether it serves and resolves for us, how large a response gets through, whether
//! negative answers have an SOA and signed ones their signatures, and whether the servers of a tier agree.

use std::time::Duration;

use super::{
    document::DoctorFinding,
    exchange::{self, Outcome, Reply, Style},
    kind::Kind,
};
use crate::{
    clock,
    networks::holds_public,
    plural::Plural,
    upstream::{GroupSpec, ServerSpec},
    wire::{
        Class, Name, Rcode, RecordType, Transport, UpstreamQuery,
        addresses::find_address,
        record::{Record, Records},
    },
};

/// Only responses larger than DNS without EDNS allows prove anything about the path.
const PLAIN: usize = 512;
/// Clocks that differ by less are right enough: signatures begin a while before they are published.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(300);
/// What is advertised to learn whether fragments come through, as a Route 53 endpoint does.
const LARGE: u16 = 4096;

/// Whether the probe was answered as by a resolver that serves us.
pub(super) fn judge(spec: &ServerSpec, probe: &UpstreamQuery, reply: &Reply, style: Style) -> Option<DoctorFinding> {
    let rcode = reply.response.rcode();
    let question = format!("{} {}", probe.name, probe.qtype);
    let about = |kind, what: String| Some(DoctorFinding::new(kind, what).of_server(&spec.to_string()));
    match rcode {
        Rcode::REFUSED => about(Kind::ServerRefuses, format!("{spec} answers {question} with REFUSED")),
        _ if style.recursion && reply.is_answer() && !reply.offers_recursion() => {
            about(Kind::NoRecursion, format!("{spec} answers {question} and offers no recursion"))
        }
        _ if reply.is_answer() => None,
        // A lame server or an authoritative one: a referral says NOERROR.
        Rcode::NOERROR => about(Kind::NoRecursion, format!("{spec} answers {question} with a referral")),
        rcode => about(Kind::ServerFails, format!("{spec} answers {question} with {rcode}")),
    }
}

/// Compares what the servers of one tier answer to one query: whether the name and its data exist, and in which kind of
/// network its addresses are. The addresses themselves may differ, since they rotate.
pub(super) fn compare(
    group: &str,
    tier: usize,
    query: &UpstreamQuery,
    said: &[(String, String)],
) -> Option<DoctorFinding> {
    let (first, word) = said.first()?;
    let (other, other_word) = said.iter().find(|(_, other)| other != word)?;
    let what = format!(
        "in tier {tier} of {group}, {first} answers {} {} with {word}, and {other} with {other_word}",
        query.name, query.qtype
    );
    Some(DoctorFinding::new(Kind::ServersDiffer, what).of_group(group).of_server(other))
}

/// An answer in a word, for [`compare`].
pub(super) fn word(reply: &Reply) -> Option<String> {
    let response = &reply.response;
    match response.rcode() {
        Rcode::NOERROR if !reply.is_answer() => None,
        Rcode::NOERROR if response.is_positive() => {
            let message = response.message();
            let public = find_address(message, |address| holds_public(address.into()).then_some("a public address"));
            let any = find_address(message, |_| Some("a private address"));
            Some(public.ok()?.or(any.ok()?).unwrap_or("data").to_owned())
        }
        Rcode::NOERROR => Some("NODATA".to_owned()),
        Rcode::NXDOMAIN => Some(Rcode::NXDOMAIN.to_string()),
        _ => None,
    }
}

/// Asks for the largest response that every resolver has, over TCP and then over UDP, to see whether responses of that
/// size get through. `is_for_all` tells that the group gets the names of the whole internet, so that signatures are of
/// use.
pub(super) async fn sizes(spec: &ServerSpec, group: &GroupSpec, style: Style, is_for_all: bool) -> Vec<DoctorFinding> {
    let query = query(Name::root(), RecordType(48), true);
    let server = spec.to_string();
    let mut findings = Vec::new();
    let over = if spec.transport == Transport::Udp { Transport::Tcp } else { spec.transport };
    let whole = exchange::ask(spec, over, &query, style).await;
    let Some(reply) = whole.reply().filter(|reply| reply.response.is_positive()) else { return findings };
    let signatures = signatures(reply);
    let now = clock::wall();
    let minutes = |time: Duration| Plural(time.as_secs() / 60, "minute");
    let ahead = signatures.iter().map(|signature| signature.inception.after(now)).min().flatten();
    let over = signatures.iter().map(|signature| signature.expiration.before(now)).min().flatten();
    let signed = match (ahead, over) {
        (Some(ahead), _) => Some(format!("are signed {} from now", minutes(ahead))),
        (_, Some(over)) => Some(format!("have signatures that expired {} ago", minutes(over))),
        (None, None) => None,
    };
    if let Some(signed) = signed {
        let what = format!("by this host's clock, the root's keys that {server} gives {signed}");
        findings.push(DoctorFinding::new(Kind::ClockOff, what).of_server(&server));
    }
    if is_for_all && signatures.is_empty() {
        let what = format!("{server} gives the root's keys without their signatures");
        findings.push(DoctorFinding::new(Kind::SignaturesStripped, what).of_server(&server));
    }
    let length = reply.length;
    let own = group.limits.udp_payload;
    if spec.transport != Transport::Udp || length <= PLAIN {
        return findings;
    }
    let is_own = length <= usize::from(own);
    let payload = if is_own { own } else { LARGE.max(own) };
    let style = Style { payload: Some(payload), ..style };
    if let Outcome::Silent = exchange::ask(spec, Transport::Udp, &query, style).await {
        let kind = if is_own { Kind::LargeResponsesLost } else { Kind::FragmentsLost };
        let what = format!("{server}: a response of {length} octets comes over TCP, and gets lost over UDP");
        findings.push(DoctorFinding::new(kind, what).of_server(&server));
    }
    findings
}

/// When a signature is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    expiration: SignatureTime,
    inception: SignatureTime,
}

/// A time in a signature, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SignatureTime(u32);

impl SignatureTime {
    /// How far after `now` it is; none within [`CLOCK_TOLERANCE`].
    fn after(self, now: Duration) -> Option<Duration> {
        Self::beyond(self.minus(now))
    }

    /// How far before `now` it is; none within [`CLOCK_TOLERANCE`].
    fn before(self, now: Duration) -> Option<Duration> {
        Self::beyond(self.minus(now).checked_neg()?)
    }

    /// Serial numbers: later ones are less than half of the circle ahead (RFC 4034 3.1.5).
    fn minus(self, now: Duration) -> i32 {
        let [.., high, upper, lower, low] = now.as_secs().to_be_bytes();
        self.0.wrapping_sub(u32::from_be_bytes([high, upper, lower, low])).cast_signed()
    }

    fn beyond(seconds: i32) -> Option<Duration> {
        let distance = Duration::from_secs(u64::try_from(seconds).ok()?);
        (distance > CLOCK_TOLERANCE).then_some(distance)
    }
}

/// The signatures of a response.
fn signatures(reply: &Reply) -> Vec<Signature> {
    let message = reply.response.message();
    let records = Records::of(message).into_iter().flatten().map_while(Result::ok);
    let signatures = records.filter(|record| record.rtype == RecordType(46));
    // Type, algorithm, labels and TTL stand before (RFC 4034 3.1).
    let signature = |record: Record| {
        let rdata = record.rdata(message);
        let time = |from: usize| Some(SignatureTime(u32::from_be_bytes(*rdata.get(from..)?.first_chunk()?)));
        Some(Signature { expiration: time(8)?, inception: time(12)? })
    };
    signatures.filter_map(signature).collect()
}

/// Asks for a name that does not exist below a zone of the group's: does the answer say how long that may be kept?
pub(super) async fn negative(spec: &ServerSpec, zone: &Name, style: Style) -> Option<DoctorFinding> {
    let query = query(unheard_of(zone)?, RecordType::A, false);
    let outcome = exchange::ask(spec, spec.transport, &query, style).await;
    let reply = outcome.reply().filter(|reply| reply.is_answer() && !reply.response.is_positive())?;
    if reply.response.negative_ttl().is_some() || !reply.response.chain().is_empty() {
        return None;
    }
    let what = format!("{spec} says that {} does not exist, without an SOA record", query.name);
    Some(DoctorFinding::new(Kind::NoSoa, what).of_server(&spec.to_string()))
}

/// A name below a zone that nobody has heard of; none if it would be too long.
pub(super) fn unheard_of(zone: &Name) -> Option<Name> {
    let label = format!("tidegate-doctor-{:08x}", rand::random::<u32>());
    zone.child(label.as_bytes()).ok()
}

/// A query in class IN.
pub(super) fn query(name: Name, qtype: RecordType, do_bit: bool) -> UpstreamQuery {
    UpstreamQuery { name, qtype, qclass: Class::IN, do_bit, cd: false }
}
