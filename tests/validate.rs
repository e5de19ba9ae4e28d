//! `tidegate query --validate` on zones that BIND's tools sign and BIND serves, below a root of their own.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    net::{SocketAddr, UdpSocket},
    path::{Path, PathBuf},
    process::Output,
    thread,
};

use hickory_proto::{dnssec::rdata::DNSSECRData, op::Message, rr::RData};
use serde_json::Value;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    peers::{Peer, tool},
    tidegate::{Tidegate, run},
};
use tempfile::TempDir;

const BIND: &str = "bind9-utils";

/// A zone that is signed, and what its parent has of it.
struct Signed {
    text: String,
    ds: String,
    /// The file with its key-signing key.
    key: PathBuf,
}

fn head(zone: &str) -> String {
    let below = if zone == "." { "" } else { zone };
    format!(
        "$TTL 300\n{zone} SOA ns.{below} root.{below} 1 3600 600 86400 300\n{zone} NS ns.{below}\nns.{below} A 127.0.0.1\n"
    )
}

/// Makes keys in a folder of the zone's own.
fn key(folder: &Path, zone: &str, algorithm: &str, flags: &[&str]) -> PathBuf {
    let place = folder.display().to_string();
    let mut arguments = vec!["-q", "-a", algorithm, "-K", &place];
    arguments.extend(flags);
    arguments.push(zone);
    let made = tool("dnssec-keygen", BIND, &arguments);
    assert!(made.status.success(), "{made:?}");
    folder.join(format!("{}.key", String::from_utf8(made.stdout).unwrap().trim()))
}

fn sign_with(algorithm: &str, zone: &str, records: &str, options: &[&str]) -> Signed {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().display().to_string();
    let key_file = key(folder.path(), zone, algorithm, &["-f", "KSK"]);
    key(folder.path(), zone, algorithm, &[]);
    let (file, signed) = (format!("{place}/zone"), format!("{place}/signed"));
    fs::write(&file, head(zone) + records).unwrap();
    // -P: zones that are meant to be broken would not pass the check that follows.
    let mut arguments = vec!["-q", "-S", "-P", "-O", "full", "-K", &place, "-d", &place, "-o", zone, "-f", &signed];
    arguments.extend(options);
    arguments.push(&file);
    let done = tool("dnssec-signzone", BIND, &arguments);
    assert!(done.status.success(), "{done:?}");
    let kept = folder.keep().join(key_file.file_name().unwrap());
    Signed {
        text: fs::read_to_string(&signed).unwrap(),
        ds: fs::read_to_string(format!("{place}/dsset-{zone}")).unwrap(),
        key: kept,
    }
}

fn sign(zone: &str, records: &str, options: &[&str]) -> Signed {
    sign_with("ECDSAP256SHA256", zone, records, options)
}

/// A root, zones below it, and a server for all of them.
struct Tree {
    server: Peer,
    folder: TempDir,
    anchor: PathBuf,
    /// The key of good.
    good: PathBuf,
}

impl Tree {
    fn new() -> Self {
        let good = sign(
            "good.",
            "www.good. A 192.0.2.1\nalias.good. CNAME www.good.\nout.good. CNAME www.plain.\n*.wild.good. A 192.0.2.2\n\
             moved.good. DNAME www.good.\nx.www.good. A 192.0.2.3\nonly.below.good. A 192.0.2.4\n",
            &[],
        );
        let hashed = sign("hashed.", "www.hashed. A 192.0.2.1\n*.wild.hashed. A 192.0.2.2\n", &["-3", "-"]);
        let www = |zone: &str| format!("www.{zone} A 192.0.2.1\n");
        let expired =
            sign("expired.", &www("expired."), &["-s", "20200101000000", "-e", "20200201000000", "-X", "now+86400"]);
        let future = sign("future.", &www("future."), &["-s", "now+86400", "-e", "now+172800"]);
        let [rolled, other] = [(); 2].map(|()| sign("rolled.", &www("rolled."), &[]));
        let changed = sign("changed.", &www("changed."), &[]);
        let silent = sign("silent.", &www("silent."), &[]);
        let exotic = sign_with("ED448", "exotic.", &www("exotic."), &[]);
        let bare = sign("bare.", "", &[]);
        let delegated =
            ["good", "hashed", "expired", "future", "rolled", "changed", "silent", "exotic", "bare", "plain"];
        let mut records: String =
            delegated.iter().map(|zone| format!("{zone}. NS ns.{zone}.\nns.{zone}. A 127.0.0.1\n")).collect();
        for ds in [&good, &hashed, &expired, &future, &other, &changed, &silent, &exotic, &bare] {
            records += &ds.ds;
        }
        let root = sign(".", &records, &[]);
        let of_www = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words[0] == "www.silent." && words[3..5] == ["RRSIG", "A"]
        };
        let silent =
            silent.text.lines().filter(|line| !of_www(line)).map(|line| format!("{line}\n")).collect::<String>();
        let changed = changed.text.replace("192.0.2.1", "192.0.2.99");
        let plain = |zone: &str| head(zone) + &www(zone);
        let server = Peer::named(&[
            (".", &root.text),
            ("good.", &good.text),
            ("hashed.", &hashed.text),
            ("expired.", &expired.text),
            ("future.", &future.text),
            ("rolled.", &rolled.text),
            ("changed.", &changed),
            ("silent.", &silent),
            ("exotic.", &exotic.text),
            ("bare.", &plain("bare.")),
            ("plain.", &plain("plain.")),
            ("private.", &plain("private.")),
        ]);
        Self { server, folder: tempfile::tempdir().unwrap(), anchor: root.key, good: good.key }
    }

    fn ask(&self, server: SocketAddr, name: &str, qtype: &str) -> Verdict {
        Verdict::of(server, name, qtype, &["--anchor", &self.anchor.display().to_string()])
    }
}

/// What the verb says, and how it ends.
struct Verdict {
    code: Option<i32>,
    document: Value,
    output: Output,
}

impl Verdict {
    fn of(server: SocketAddr, name: &str, qtype: &str, options: &[&str]) -> Self {
        let at = format!("@{server}");
        let mut arguments = vec!["query", name, qtype, &at, "--validate", "--json"];
        arguments.extend(options);
        let output = run(&arguments);
        let document = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        Self { code: output.status.code(), document, output }
    }

    fn word(&self, pointer: &str) -> &str {
        self.document.pointer(pointer).and_then(Value::as_str).unwrap_or("-")
    }

    /// The verdict, the validator's and the cause.
    fn words(&self) -> (&str, &str, &str) {
        (self.word("/verdict"), self.word("/validator"), self.word("/broken/cause"))
    }

    fn broken(&self) -> &str {
        self.word("/broken/text")
    }
}

#[test]
fn the_verdict_names_the_link_that_broke() {
    let tree = Tree::new();
    // The verdict, hickory's, the cause, and words of the reason.
    let table = [
        ("www.good.", "A", "secure", "secure", "-", ""),
        ("alias.good.", "A", "secure", "secure", "-", ""),
        ("x.moved.good.", "A", "secure", "bogus", "-", ""),
        ("any.wild.good.", "A", "secure", "bogus", "-", ""),
        ("any.wild.good.", "MX", "secure", "secure", "-", ""),
        ("www.good.", "MX", "secure", "secure", "-", ""),
        ("below.good.", "A", "secure", "secure", "-", ""),
        ("nobody.good.", "A", "secure", "secure", "-", ""),
        ("good.", "DS", "secure", "secure", "-", ""),
        ("nobody.", "A", "secure", "secure", "-", ""),
        ("www.hashed.", "A", "secure", "secure", "-", ""),
        ("any.wild.hashed.", "A", "secure", "secure", "-", ""),
        ("www.hashed.", "MX", "secure", "secure", "-", ""),
        ("nobody.hashed.", "A", "secure", "secure", "-", ""),
        ("www.plain.", "A", "insecure", "insecure", "-", ""),
        ("nobody.plain.", "A", "insecure", "insecure", "-", ""),
        // The validator sees the signed alias alone.
        ("out.good.", "A", "insecure", "secure", "-", ""),
        ("www.exotic.", "A", "insecure", "insecure", "-", ""),
        ("www.expired.", "A", "bogus", "bogus", "expired", "expired 2020-02-01 00:00:00 UTC"),
        ("www.future.", "A", "bogus", "bogus", "not-yet-valid", "is this host's clock right?"),
        ("www.rolled.", "A", "bogus", "bogus", "ds-mismatch", "fits no DNSKEY of rolled."),
        ("www.changed.", "A", "bogus", "bogus", "bad-signature", "the RRSIG of A www.changed."),
        ("www.silent.", "A", "bogus", "bogus", "no-signature", "no RRSIG covers A www.silent."),
        ("www.bare.", "A", "bogus", "bogus", "no-dnskey", "the server gives no DNSKEY of bare."),
        ("www.private.", "A", "bogus", "bogus", "denied", "there is no private."),
    ];
    for (name, qtype, verdict, validator, cause, text) in table {
        let said = tree.ask(tree.server.address, name, qtype);
        assert_eq!(said.words(), (verdict, validator, cause), "{name} {qtype}: {:#}", said.document);
        assert!(text.is_empty() || said.broken().contains(text), "{name} {qtype}: {:#}", said.document);
        assert_eq!(said.code, Some(i32::from(verdict == "bogus")), "{name} {qtype}: {:?}", said.output);
    }
}

#[test]
fn a_daemon_in_between_changes_nothing() {
    let tree = Tree::new();
    let config = Config::new().servers("site", &[tree.server.address.to_string()], ONE_PATIENT_TRY).forward(
        "all",
        &["."],
        "site",
        "",
    );
    let tidegate = Tidegate::start(&config);
    for (name, verdict) in [("www.good.", "secure"), ("www.plain.", "insecure"), ("www.expired.", "bogus")] {
        let said = tree.ask(tidegate.address(), name, "A");
        assert_eq!(said.words().0, verdict, "{name}: {:#}", said.document);
    }
}

/// A forwarder that takes signatures away.
#[derive(Clone, Copy)]
enum Stripper {
    /// It asks without DO.
    AsksWithout,
    /// It removes signatures and proofs.
    Removes,
    /// It removes a zone's signatures.
    RemovesOf(&'static str),
}

impl Stripper {
    fn start(self, server: SocketAddr) -> SocketAddr {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok((length, client)) = socket.recv_from(&mut buffer) {
                let answer = self.answer(server, buffer[..length].to_vec());
                socket.send_to(&answer, client).unwrap();
            }
        });
        address
    }

    fn answer(self, server: SocketAddr, mut query: Vec<u8>) -> Vec<u8> {
        let upstream = UdpSocket::bind("127.0.0.1:0").unwrap();
        if matches!(self, Self::AsksWithout) {
            // Our own queries end with OPT, and that with its flags and the length of its options (RFC 6891 6.1.3).
            let flags = query.len() - 4;
            query[flags] &= 0x7f;
        }
        upstream.send_to(&query, server).unwrap();
        let mut buffer = [0; 4096];
        let length = upstream.recv(&mut buffer).unwrap();
        let mut message = Message::from_vec(&buffer[..length]).unwrap();
        for section in [&mut message.answers, &mut message.authorities] {
            section.retain(|record| self.keeps(&record.data));
        }
        message.to_vec().unwrap()
    }

    fn keeps(self, data: &RData) -> bool {
        let RData::DNSSEC(data) = data else { return true };
        match (self, data) {
            (Self::AsksWithout, _) => true,
            (Self::RemovesOf(zone), DNSSECRData::RRSIG(signature)) => signature.input().signer_name.to_string() != zone,
            (Self::RemovesOf(_), _) => true,
            (Self::Removes, _) => matches!(data, DNSSECRData::DNSKEY(_) | DNSSECRData::DS(_)),
        }
    }
}

#[test]
fn a_server_that_strips_signatures_is_told_apart_from_bogus() {
    let tree = Tree::new();
    for (stripper, words) in [
        (Stripper::AsksWithout, "leaves signatures out, although"),
        (Stripper::Removes, "leaves signatures out, although"),
        // Signed up to the zone: as a forwarder that has another server for it.
        (Stripper::RemovesOf("good."), "leaves signatures out of good."),
    ] {
        let server = stripper.start(tree.server.address);
        let said = tree.ask(server, "www.good.", "A");
        let (verdict, _, cause) = said.words();
        assert_eq!((verdict, cause), ("indeterminate", "signatures-stripped"), "{:#}", said.document);
        assert!(said.broken().contains(words), "{:#}", said.document);
        assert_eq!(said.code, Some(2), "{:?}", said.output);
    }
}

#[test]
fn without_the_right_anchor_there_is_no_chain() {
    let tree = Tree::new();
    let said = Verdict::of(tree.server.address, "www.good.", "A", &[]);
    assert_eq!(said.words(), ("bogus", "bogus", "anchor-mismatch"), "{:#}", said.document);
    assert!(said.broken().contains("--anchor FILE"), "{:#}", said.document);

    // An anchor for a zone in the middle: what lies outside it is not covered.
    let good = tree.good.display().to_string();
    let said = Verdict::of(tree.server.address, "www.good.", "A", &["--anchor", &good]);
    assert_eq!((said.words().0, said.code), ("secure", Some(0)), "{:#}", said.document);
    let said = Verdict::of(tree.server.address, "www.plain.", "A", &["--anchor", &good]);
    assert_eq!((said.words().0, said.words().2), ("indeterminate", "no-trust-anchor"), "{:#}", said.document);

    let nonsense = tree.folder.path().join("nonsense");
    fs::write(&nonsense, ". IN DS 20326 8 2 E06D44B80B8F1D39A95C0B0D7C65D08458E880409BBC683457104237C7F8EC8D\n")
        .unwrap();
    let output = run(&["query", "www.good.", "--validate", "--anchor", &nonsense.display().to_string()]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(said.contains("holds no trust anchors") && said.contains("DNSKEY records"), "{said}");
}

#[test]
fn people_read_the_chain_link_by_link() {
    let tree = Tree::new();
    let (at, anchor) = (format!("@{}", tree.server.address), tree.anchor.display().to_string());
    let output = run(&["query", "www.expired.", &at, "--validate", "--anchor", &anchor]);
    let text = String::from_utf8_lossy(&output.stdout);
    for words in [
        "www.expired. A  bogus\n",
        "is a trust anchor and signs the zone's 2 keys",
        "BROKEN: the RRSIG of ",
        "a resolver that validates refuses",
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_server_that_is_silent_leaves_it_open() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let said = Verdict::of(silent.local_addr().unwrap(), "www.good.", "A", &[]);
    assert_eq!(said.words(), ("indeterminate", "-", "no-answer"), "{:#}", said.document);
    assert_eq!(said.code, Some(2), "{:?}", said.output);
}
