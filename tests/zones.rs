//! The same zone files, served by BIND and by us, give the same answers: response code, AA, TC, and every section as a
//! set, TTLs too. Where we differ on purpose, [`argued`] says so and why.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a test")]

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use tidegate::{
    wire::{
        Class, Flags, Header, Name, NameBuf, Rcode, RecordType, name,
        record::{Records, Section},
    },
    zones::{LocalOutcome, LocalQuery, LocalSpec, RecordPlace, SpecialUse, ZoneSource, Zones},
};

/// The zones, and their files in `tests/zones`.
const ZONES: [(&str, &str); 4] =
    [("example", "rfc4592.zone"), ("edu", "rfc1034.zone"), ("corp.test", "corp.zone"), ("gen.test", "generate.zone")];

/// Names that `$GENERATE` makes, and neighbours that it does not.
const GENERATED: &str = "dhcp-0 dhcp-1 dhcp-20 dhcp-21 step-0 step-3 step-9 step-10 host-1 host-3 1 2 3 server1 server2 mx \
    off-0000 off-0001 off-0002 off-3 oct-010 oct-011 oct-012 oct-10 1.1.0.0.nib 2.1.0.0.nib 3.1.0.0.nib 0.0.nib x.d1 \
    x.d2 d1 d01 _srv1._tcp _srv2._tcp a\\$1 x.w1 w1 after";

/// How many queries are sent.
const QUESTIONS: usize = 10_000;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/zones")
}

fn ours() -> Zones {
    let place = RecordPlace { file: "tidegate.toml".into(), line: 1 };
    let specs = ZONES.map(|(zone, file)| LocalSpec {
        zone: zone.parse().unwrap(),
        place: place.clone(),
        source: ZoneSource::File(folder().join(file)),
    });
    Zones::build(&specs, None, SpecialUse::Ignored, None).unwrap_or_else(|problems| {
        let lines: Vec<_> = problems.iter().map(ToString::to_string).collect();
        panic!("the zone files are not read:\n{}", lines.join("\n"))
    })
}

/// The question of a query.
type Asked = (Name, RecordType);

/// BIND on a loopback port of its own, ended with the value.
struct Bind {
    process: Child,
    address: SocketAddr,
    folder: tempfile::TempDir,
}

impl Bind {
    /// Starts BIND; again on another port, should someone have taken the first in the meantime.
    fn start() -> Self {
        let named = ["/usr/sbin/named", "/usr/local/sbin/named", "/usr/bin/named"];
        let named = named.iter().find(|path| Path::new(path).exists()).expect("no named: apt-get install bind9");
        (0..5).find_map(|_| Self::on_a_free_port(named)).expect("five ports in a row were taken")
    }

    fn on_a_free_port(named: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        let tcp = TcpListener::bind(address).ok()?;
        let configuration = configuration(folder.path(), address.port());
        let path = folder.path().join("named.conf");
        fs::write(&path, configuration).unwrap();
        let log = fs::File::create(folder.path().join("named.log")).unwrap();
        drop((udp, tcp));
        let process = Command::new(named)
            .args(["-4", "-g", "-n", "1", "-c"])
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let mut bind = Self { process, address, folder };
        bind.runs().then_some(bind)
    }

    /// Waits until BIND says that it runs, ten seconds at most; false if its port was taken.
    fn runs(&mut self) -> bool {
        let mut log = String::new();
        for _ in 0..200 {
            log = fs::read_to_string(self.folder.path().join("named.log")).unwrap();
            assert!(self.process.try_wait().unwrap().is_none(), "named ended:\n{log}");
            if log.lines().any(|line| line.ends_with(" running")) {
                return !log.contains("address in use");
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("named does not run on {}:\n{log}", self.address);
    }

    /// Sends all queries on one connection, and returns the answers in order.
    fn ask(&self, questions: &[Asked]) -> Vec<Vec<u8>> {
        let mut stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut answers = Vec::new();
        for (qname, qtype) in questions {
            let id = u16::try_from(answers.len() & 0xffff).unwrap().to_be_bytes();
            let fixed = [id[0], id[1], 0, 0, 0, 1, 0, 0, 0, 0, 0, 0];
            let query = [&fixed, qname.as_wire(), &qtype.0.to_be_bytes(), &Class::IN.0.to_be_bytes()].concat();
            let framed = [&u16::try_from(query.len()).unwrap().to_be_bytes(), &query[..]].concat();
            stream.write_all(&framed).unwrap();
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut answer).unwrap();
            assert_eq!(answer[..2], id);
            answers.push(answer);
        }
        answers
    }
}

/// A configuration that serves only our zones, with sections as full as ours.
fn configuration(folder: &Path, port: u16) -> String {
    let options = [
        format!("directory \"{}\"", folder.display()),
        format!("listen-on port {port} {{ 127.0.0.1; }}"),
        "listen-on-v6 { none; }; allow-query { any; }; recursion no; notify no; pid-file none".to_owned(),
        // As we do: no NS beside a positive answer, but addresses; ANY whole.
        "minimal-responses no-auth; minimal-any no".to_owned(),
        // Negative answers to SOA questions are cached like others.
        "zero-no-soa-ttl no".to_owned(),
        // The zones show what is unwise, too.
        "check-names primary ignore; check-integrity no".to_owned(),
        "dnssec-validation no; empty-zones-enable no; answer-cookie no".to_owned(),
    ];
    let mut text = format!("options {{ {}; }};\ncontrols {{ }};\n", options.join("; "));
    for (zone, file) in ZONES {
        fs::copy(self::folder().join(file), folder.join(file)).unwrap();
        text += &format!("zone \"{zone}\" {{ type primary; file \"{file}\"; }};\n");
    }
    text
}

impl Drop for Bind {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A message in a form that two servers can agree on: names whole and in lower case, sections without order.
#[derive(Debug, PartialEq, Eq)]
struct Canonical {
    rcode: Rcode,
    aa: bool,
    tc: bool,
    answer: Vec<String>,
    authority: Vec<String>,
    additional: Vec<String>,
}

impl std::fmt::Display for Canonical {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { rcode, aa, tc, answer, authority, additional } = self;
        write!(f, "{rcode} aa={aa} tc={tc} {answer:?} | {authority:?} | {additional:?}")
    }
}

fn canonical(message: &[u8]) -> Canonical {
    let header = Header::read(message).unwrap();
    let mut sections = [const { Vec::new() }; 3];
    let mut records = Records::of(message).unwrap();
    for record in records.by_ref() {
        let record = record.unwrap();
        let section = match record.section {
            Section::Answer => 0,
            Section::Authority => 1,
            Section::Additional => 2,
        };
        let rdata = rdata(message, record.rtype, record.rdata_at, record.rdata_end);
        let owner = whole(message, record.owner_at).0;
        sections[section].push(format!("{owner:?} {} {} {} {rdata}", record.raw_ttl, record.class, record.rtype));
    }
    assert_eq!(records.position(), message.len(), "octets follow the last record");
    let [answer, authority, additional] = sections.map(|mut lines| {
        lines.sort();
        lines
    });
    let flags = header.flags;
    Canonical {
        rcode: flags.rcode(),
        aa: flags.has(Flags::AA),
        tc: flags.has(Flags::TC),
        answer,
        authority,
        additional,
    }
}

fn whole(message: &[u8], at: usize) -> (Name, usize) {
    let mut buffer = NameBuf::new();
    let end = buffer.expand(message, at).unwrap();
    (buffer.to_name(), end)
}

/// RDATA with its names whole: of the types of RFC 1035 as they may be compressed, of the others for their case.
fn rdata(message: &[u8], rtype: RecordType, at: usize, end: usize) -> String {
    let (prefix, names) = match rtype {
        RecordType::NS | RecordType::CNAME | RecordType::PTR | RecordType::DNAME => (0, 1),
        RecordType::SOA | RecordType::MINFO | RecordType::RP => (0, 2),
        RecordType::MX | RecordType::AFSDB | RecordType::KX | RecordType::RT => (2, 1),
        RecordType::SVCB | RecordType::HTTPS => (2, 1),
        RecordType::PX => (2, 2),
        RecordType::SRV => (6, 1),
        _ => (0, 0),
    };
    let mut text = format!("{:02x?}", &message[at..at + prefix]);
    let mut at = at + prefix;
    for _ in 0..names {
        let (name, behind) = whole(message, at);
        text += &format!(" {name}");
        at = behind;
    }
    text + &format!(" {:02x?}", &message[at..end])
}

/// A small generator that gives the same queries every time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % bound
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

/// Every name that a zone file mentions, as owner or target, with what is above each.
fn mentioned(zones: &Zones) -> Vec<Name> {
    let mut names = BTreeSet::new();
    let mut add = |text: &str, origin: &str| {
        let text = if text == "@" { origin.to_owned() } else { text.to_owned() };
        let absolute = if text.ends_with('.') { text } else { format!("{text}.{origin}.") };
        let Ok(name) = absolute.parse::<Name>() else { return };
        let above = std::iter::successors(Some(name), Name::parent);
        names.extend(above.filter(|name| covered(zones, name)));
    };
    for (zone, file) in ZONES {
        let mut origin = zone.to_owned();
        for line in fs::read_to_string(folder().join(file)).unwrap().lines() {
            if let Some(text) = line.strip_prefix("$ORIGIN ") {
                origin = text.trim_end_matches('.').to_owned();
            }
            let words: Vec<_> = line.split_whitespace().collect();
            let owner = words.first().filter(|_| !line.starts_with([' ', '\t', ';', '$']));
            let points = ["NS", "CNAME", "DNAME", "MX", "SRV", "SVCB"].iter().any(|rtype| words.contains(rtype));
            let target = words.last().filter(|_| points);
            for word in owner.into_iter().chain(target) {
                add(word, &origin);
            }
        }
    }
    let generated = GENERATED.split_whitespace().map(|name| format!("{name}.gen.test").parse::<Name>().unwrap());
    names.into_iter().chain(generated).collect()
}

fn covered(zones: &Zones, name: &Name) -> bool {
    zones.domains().any(|domain| name.is_within(domain.name))
}

const TYPES: [RecordType; 26] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::NS,
    RecordType::CNAME,
    RecordType::DNAME,
    RecordType::SOA,
    RecordType::MX,
    RecordType::TXT,
    RecordType::SRV,
    RecordType::PTR,
    RecordType::DS,
    RecordType::ANY,
    RecordType::HTTPS,
    RecordType::SVCB,
    RecordType::CAA,
    RecordType::NAPTR,
    RecordType::HINFO,
    RecordType::RP,
    RecordType::AFSDB,
    RecordType::KX,
    RecordType::RT,
    RecordType::DNSKEY,
    RecordType::NSEC,
    RecordType::RRSIG,
    RecordType(65280),
    RecordType(65281),
];

fn questions(zones: &Zones) -> Vec<Asked> {
    let names = mentioned(zones);
    let mut questions = BTreeSet::new();
    // Every owner with every type that is there, then what the dice say.
    for name in &names {
        let always = [RecordType::ANY, RecordType::A, RecordType::DS];
        questions.extend(always.map(|qtype| (name.clone(), qtype)));
    }
    // A DNAME whose target is longer, and names that have no room for it (RFC 6672 2.2).
    for length in 1..=63 {
        let long = "l".repeat(length);
        let name = format!("{long}.{long}.{long}.grow.corp.test").parse().unwrap();
        questions.insert((name, RecordType::A));
    }
    let labels: Vec<Vec<u8>> =
        names.iter().filter_map(|name| name.labels().next().map(<[u8]>::to_vec)).chain([b"zz".to_vec()]).collect();
    let mut dice = Dice(4592);
    while questions.len() < QUESTIONS {
        let mut name = dice.pick(&names).clone();
        for _ in 0..dice.below(4) {
            let label = match dice.below(8) {
                0 => b"*".to_vec(),
                1 => vec![b'l'; 1 + dice.below(63)],
                _ => dice.pick(&labels).clone(),
            };
            name = name.child(&label).unwrap_or(name);
        }
        if dice.below(8) == 0 {
            name = name.parent().filter(|parent| covered(zones, parent)).unwrap_or(name);
        }
        questions.insert((name, *dice.pick(&TYPES)));
    }
    questions.into_iter().collect()
}

/// Why our answer may differ from BIND's; none if it may not.
fn argued(qtype: RecordType, outcome: &LocalOutcome, ours: &Canonical, theirs: &Canonical) -> Option<&'static str> {
    let same_but_additional = (ours.rcode, ours.aa, &ours.answer, &ours.authority)
        == (theirs.rcode, theirs.aa, &theirs.answer, &theirs.authority);
    if *outcome == LocalOutcome::Endless && theirs.rcode == Rcode::SERVFAIL {
        return Some("an endless chain is a SERVFAIL without records here; BIND shows what it followed");
    }
    let is_address = |record: &&String| record.contains(" IN A ") || record.contains(" IN AAAA ");
    if matches!(outcome, LocalOutcome::Delegated { .. }) && same_but_additional {
        let (known, more): (Vec<_>, Vec<_>) =
            ours.additional.iter().partition(|record| theirs.additional.contains(record));
        let is_more = known.len() == theirs.additional.len() && more.iter().all(is_address);
        return is_more
            .then_some("a referral has all addresses the zone knows (RFC 1034 4.3.2, 3b); BIND gives glue alone");
    }
    if qtype == RecordType::NAPTR && same_but_additional && ours.additional.is_empty() {
        return Some("what a NAPTR leads to is left to the client (RFC 3403 4.2 allows both); BIND adds it");
    }
    let is_dnskey = |record: &&String| record.contains(" DNSKEY ") || record.contains(" CDS ");
    if qtype == RecordType::ANY && theirs.answer.is_empty() && ours.answer.iter().all(|record| is_dnskey(&record)) {
        return Some("ANY is all there is; BIND hides DNSSEC types of unsigned zones");
    }
    None
}

#[test]
fn the_answers_are_those_of_bind() {
    let zones = ours();
    let questions = questions(&zones);
    let bind = Bind::start();
    let answers = bind.ask(&questions);
    let mut different = Vec::new();
    let mut reasons = std::collections::BTreeMap::new();
    let mut rcodes = std::collections::BTreeMap::new();
    for ((qname, qtype), theirs) in questions.iter().zip(&answers) {
        let question = LocalQuery { name: qname, qtype: *qtype, qclass: Class::IN };
        let answer = zones.answer(&question, |_| true).expect("every question is within a zone");
        assert_eq!(name::skip(&answer.message, 12), Ok(12 + qname.as_wire().len()), "the question is whole");
        let (ours, theirs) = (canonical(&answer.message), canonical(theirs));
        *rcodes.entry(theirs.rcode.to_string()).or_insert(0) += 1;
        if ours == theirs {
            continue;
        }
        match argued(*qtype, &answer.outcome, &ours, &theirs) {
            Some(reason) => *reasons.entry(reason).or_insert(0) += 1,
            None => different.push(format!("{qname} {qtype}\n  ours   {ours}\n  theirs {theirs}")),
        }
    }
    println!("{} questions, {rcodes:?}, argued: {reasons:#?}", questions.len());
    let shown: Vec<_> = different.iter().take(10).map(String::as_str).collect();
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), questions.len(), shown.join("\n"));
    assert!(["NOERROR", "NXDOMAIN", "YXDOMAIN"].iter().all(|rcode| rcodes.contains_key(*rcode)), "{rcodes:?}");
}
