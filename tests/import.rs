//! `tidegate import`: configurations of other servers, and what they are turned into.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use rstest::rstest;
use support::{
    client::{Answer, Client},
    peers::Peer,
    query::{Query, rtype},
    records::{Record, Reply},
    tidegate::{Tidegate, run},
    upstream::Upstream,
};

fn data(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import").join(kind)
}

/// Runs the verb in a folder, so that places are short.
fn import(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    command.current_dir(folder).arg("import").args(arguments).output().unwrap()
}

fn text(octets: &[u8]) -> String {
    String::from_utf8(octets.to_vec()).unwrap()
}

/// Each file gives what `expected` has for it, with its exit code; that passes `check`, and its expectations hold. TIDEGATE_BLESS=1 writes
/// what is expected.
#[rstest]
#[case::unbound("unbound")]
#[case::named("named")]
#[case::dnsmasq("dnsmasq")]
#[case::corefile("corefile")]
#[case::windows("windows")]
fn every_example_becomes_what_is_expected_and_passes_check(#[case] kind: &str) {
    let folder = data(kind);
    let mut names: Vec<String> =
        fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name.starts_with(|c: char| c.is_ascii_digit()));
    names.sort_unstable();
    assert_eq!(names.len(), 10);
    let scratch = tempfile::tempdir().unwrap();
    for name in names {
        let output = import(&folder, &[&name]);
        let (code, toml) = (output.status.code().unwrap(), text(&output.stdout));
        let has_lost = toml.contains("\n# Not carried over:\n");
        assert_eq!(code, i32::from(has_lost), "{kind}/{name}: {}", text(&output.stderr));

        let file = scratch.path().join("t.toml");
        fs::write(&file, &toml).unwrap();
        let checked = run(&["check", file.to_str().unwrap()]);
        assert!(checked.status.success(), "{kind}/{name}: {}\n{toml}", text(&checked.stderr));

        let out = scratch.path().join(format!("{name}.out"));
        fs::create_dir(&out).unwrap();
        import(&folder, &[&name, "--output", out.to_str().unwrap()]);
        let tested = run(&["test", out.join("tidegate.expectations.toml").to_str().unwrap()]);
        assert!(tested.status.success(), "{kind}/{name}: {}", text(&tested.stdout) + &text(&tested.stderr));

        let shown = toml.replace(&data("").display().to_string(), "DATA/");
        let expected = data("expected").join(kind).join(&name).with_extension("toml");
        if std::env::var_os("TIDEGATE_BLESS").is_some() {
            fs::create_dir_all(expected.parent().unwrap()).unwrap();
            fs::write(&expected, &shown).unwrap();
        }
        assert_eq!(shown, fs::read_to_string(&expected).unwrap_or_default(), "{kind}/{name}");
    }
}

#[test]
fn a_folder_gets_all_that_belongs_to_the_result_and_nothing_is_overwritten() {
    let scratch = tempfile::tempdir().unwrap();
    let out = scratch.path().join("out").display().to_string();
    let output = import(&data("dnsmasq"), &["03-hosts.conf", "--output", &out]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let toml = fs::read_to_string(scratch.path().join("out/tidegate.toml")).unwrap();
    assert!(toml.contains("[local_hosts]"), "{toml}");
    let hosts = fs::read_to_string(scratch.path().join("out/tidegate.hosts")).unwrap();
    for line in ["10.1.7.2 nas.lan.example", "fd00:1::7 printer.lan.example printer", "10.1.7.8 scanner.lan.example"] {
        assert!(hosts.contains(line), "{line} in {hosts}");
    }
    let cases = fs::read_to_string(scratch.path().join("out/tidegate.expectations.toml")).unwrap();
    assert!(cases.contains("config = \"tidegate.toml\"\n") && cases.contains("rule = \"site\"\n"), "{cases}");
    let checked = run(&["check", scratch.path().join("out/tidegate.toml").to_str().unwrap()]);
    assert!(checked.status.success(), "{}", text(&checked.stderr));

    let again = import(&data("dnsmasq"), &["03-hosts.conf", "--output", &out]);
    assert_eq!(again.status.code(), Some(2));
    assert!(text(&again.stderr).contains("tidegate.toml exists"), "{}", text(&again.stderr));
}

#[test]
fn parts_that_cannot_be_imported_are_reported_without_a_panic() {
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("x");
    let mut cases: Vec<(Vec<u8>, &str)> = vec![
        (Vec::new(), "looks like no configuration"),
        (b"Dear colleague,\n".to_vec(), "looks like no configuration"),
        (b"server:\n".to_vec(), "nothing in it"),
        (vec![0xff; 300], "looks like no configuration"),
        (fs::read("README.md").unwrap(), "looks like no configuration"),
        (fs::read("Cargo.toml").unwrap(), "looks like no configuration"),
        (fs::read("config/reference.toml").unwrap(), "configuration of tidegate already"),
    ];
    cases.push((format!("options {}", "{ a ".repeat(5000)).into_bytes(), ""));
    cases.push((format!(". {}", "{\n a ".repeat(5000)).into_bytes(), ""));
    cases.push((b"import x\n. {\n import x\n forward . 10.0.0.1\n}\n".to_vec(), ""));
    for (octets, said) in cases {
        fs::write(&file, octets).unwrap();
        for from in [
            &[][..],
            &["--from", "unbound"],
            &["--from", "named"],
            &["--from", "dnsmasq"],
            &["--from", "corefile"],
            &["--from", "windows"],
        ] {
            let output = import(scratch.path(), &[&["x"], from].concat());
            let code = output.status.code().expect("it ends by itself");
            assert!((0..=2).contains(&code), "{code}: {}", text(&output.stderr));
            if from.is_empty() {
                assert!(text(&output.stderr).contains(said), "{said}: {}", text(&output.stderr));
            }
        }
    }
    let output = import(scratch.path(), &["/nonexistent/unbound.conf"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("/nonexistent/unbound.conf cannot be read"));
}

/// Two distinguishable upstreams, for the names of a site.
struct Site {
    vpc: Upstream,
    rest: Upstream,
}

impl Site {
    fn start() -> Self {
        let of = |v4: &str, v6: &str| {
            let upstream = Upstream::answering(v4);
            upstream.on_type(rtype::AAAA, Reply::of([Record::aaaa("@", 300, v6)]));
            upstream.on_type(rtype::TXT, Reply::nodata(300));
            // BIND takes no NODATA for the name of a forwarded zone from a zone above it.
            upstream.on("amazonaws.com.", rtype::TXT, Reply::of([Record::txt("@", 300, "text")]));
            upstream.on_type(rtype::PTR, Reply::nxdomain(300));
            for n in 0..10 {
                upstream.on(&format!("none{n}.corp.example."), rtype::A, Reply::nxdomain(300));
            }
            upstream
        };
        Self { vpc: of("10.20.0.1", "fd00:20::1"), rest: of("10.1.0.1", "fd00:1::1") }
    }

    fn ports(&self) -> (u16, u16) {
        (self.vpc.address.port(), self.rest.address.port())
    }
}

/// 200 queries: forwarded to either upstream, answered here, or for names that do not exist.
fn questions() -> Vec<Query> {
    let mut all = Vec::new();
    for n in 0..25 {
        all.push(Query::a(&format!("bucket{n}.s3.eu-west-1.amazonaws.com.")));
        all.push(Query::new(&format!("sts{n}.amazonaws.com."), rtype::AAAA));
        all.push(Query::a(&format!("host{n}.corp.example.")));
        all.push(Query::new(&format!("www{n}.example."), rtype::AAAA));
        all.push(Query::new(&format!("text{n}.example."), rtype::TXT));
    }
    for n in 0..10 {
        all.push(Query::a(&format!("none{n}.corp.example.")));
        all.push(Query::a(&format!("none{n}.lan.example.")));
        all.push(Query::a(&format!("any{n}.pay.example.")));
    }
    for name in
        ["www.lan.example.", "mail.lan.example.", "pay.example.", "AMAZONAWS.com.", "amazonaws.com.evil.example."]
    {
        for qtype in [rtype::A, rtype::AAAA, rtype::TXT] {
            all.push(Query::new(name, qtype));
        }
    }
    for n in 0..30 {
        all.push(Query::a(&format!("x{n}.deep.below.api.aws.")));
    }
    assert_eq!(all.len(), 200);
    all
}

/// What a client makes of an answer.
fn meaning(answer: &Answer) -> String {
    let mut data: Vec<String> =
        answer.answers().iter().map(|record| format!("{} {}", record.record_type(), record.data)).collect();
    data.sort_unstable();
    format!("{} {data:?}", answer.rcode())
}

#[track_caller]
fn answers_alike(original: &Peer, toml: &Path) {
    answers_alike_but_for(original, toml, &[]);
}

/// Answers to queries for these names may differ, and for each of them some does.
#[track_caller]
fn answers_alike_but_for(original: &Peer, toml: &Path, differ: &[&str]) {
    let tidegate = Tidegate::start_without_file(
        &[("TIDEGATE_SOCKET", "off")],
        &["--config", toml.to_str().unwrap(), "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"],
    );
    let (theirs, ours) = (Client::new(original.address), tidegate.client());
    let mut others = Vec::new();
    for query in questions() {
        let (expected, got) = (meaning(&theirs.ask(&query)), meaning(&ours.ask(&query)));
        if expected != got {
            others.push(format!("{query:?}: {expected} became {got}"));
        }
    }
    let is_about = |line: &String, name: &&&str| {
        line.contains(&format!("name: \"{name}\"")) || line.contains(&format!(".{name}\""))
    };
    for name in differ {
        assert!(others.iter().any(|line| is_about(line, &name)), "{name} does not differ");
    }
    others.retain(|line| !differ.iter().any(|name| is_about(line, &name)));
    assert!(others.is_empty(), "{} of 200 differ:\n{}", others.len(), others.join("\n"));
}

/// Imports a file beside the original server's; it must not matter that parts are lost.
#[track_caller]
fn imported(peer: &Peer, file: &str) -> PathBuf {
    let toml = peer.folder().join("out.toml");
    let output = import(peer.folder(), &[file, "--output", toml.to_str().unwrap()]);
    assert!(output.status.code().is_some_and(|code| code < 2), "{}", text(&output.stderr));
    toml
}

#[test]
fn tidegate_answers_200_names_as_unbound_did() {
    let site = Site::start();
    let (vpc, rest) = site.ports();
    let forward =
        |zone: &str, port: u16| format!("forward-zone:\n name: \"{zone}\"\n forward-addr: 127.0.0.1@{port}\n");
    let sections = [forward("amazonaws.com", vpc), forward("api.aws", vpc), forward(".", rest)].concat();
    let local = " local-zone: \"lan.example.\" static\n local-data: \"www.lan.example. 300 IN A 10.1.2.3\"\n \
                 local-data: 'mail.lan.example. TXT \"v=spf1 -all\"'\n local-zone: pay.example redirect\n \
                 local-data: \"pay.example A 10.9.9.9\"\n";
    let peer = Peer::unbound(local, &sections, &Query::a("probe.example."));
    answers_alike(&peer, &imported(&peer, "unbound.conf"));
}

#[test]
fn tidegate_answers_200_names_as_bind_did() {
    let site = Site::start();
    let (vpc, rest) = site.ports();
    let zone = "$TTL 300\n@ SOA ns h 1 7200 900 1209600 60\n@ NS ns\nns A 10.1.1.53\nwww A 10.1.2.3\nmail TXT \"v=spf1 -all\"\n";
    let pay = "$TTL 300\n@ SOA ns h 1 7200 900 1209600 60\n@ NS ns\n@ A 10.9.9.9\n* A 10.9.9.9\nns A 10.1.1.53\n";
    let peer = Peer::start("named", "bind9", &Query::a("probe.example."), |folder, port| {
        let forward = |name: &str| {
            format!("zone \"{name}\" {{ type forward; forward only; forwarders {{ 127.0.0.1 port {vpc}; }}; }};\n")
        };
        let conf = format!(
            "options {{ directory \"{}\"; listen-on port {port} {{ 127.0.0.1; }}; listen-on-v6 {{ none; }};
             pid-file none; session-keyfile none; lock-file none; recursion yes; allow-recursion {{ any; }};
             minimal-responses yes; dnssec-validation no; forward only; forwarders {{ 127.0.0.1 port {rest}; }}; }};
             controls {{ }};
             zone \"lan.example\" {{ type primary; file \"lan.zone\"; }};
             zone \"pay.example\" {{ type primary; file \"pay.zone\"; }};
             {}{}",
            folder.display(),
            forward("amazonaws.com"),
            forward("api.aws")
        );
        fs::write(folder.join("lan.zone"), zone).unwrap();
        fs::write(folder.join("pay.zone"), pay).unwrap();
        fs::write(folder.join("named.conf"), conf).unwrap();
        let mut command = Command::new("named");
        command.args(["-g", "-n", "1", "-c"]).arg(folder.join("named.conf"));
        command
    });
    answers_alike(&peer, &imported(&peer, "named.conf"));
}

#[test]
fn tidegate_answers_200_names_as_dnsmasq_did() {
    let site = Site::start();
    let (vpc, rest) = site.ports();
    let peer = Peer::start("dnsmasq", "dnsmasq-base", &Query::a("probe.example."), |folder, port| {
        let conf = format!(
            "port={port}\nlisten-address=127.0.0.1\nbind-interfaces\nno-resolv\nno-hosts\nno-daemon\nuser=\npid-file=\n\
             server=127.0.0.1#{rest}\nserver=/amazonaws.com/api.aws/127.0.0.1#{vpc}\nlocal=/lan.example/\n\
             addn-hosts={}/more.hosts\ntxt-record=mail.lan.example,\"v=spf1 -all\"\naddress=/pay.example/10.9.9.9\n\
             address=/pay.example/fd00:9::9\n",
            folder.display()
        );
        fs::write(folder.join("more.hosts"), "10.1.2.3 www.lan.example\n").unwrap();
        fs::write(folder.join("dnsmasq.conf"), conf).unwrap();
        let mut command = Command::new("dnsmasq");
        command.arg("-k").arg("-C").arg(folder.join("dnsmasq.conf"));
        command
    });
    answers_alike(&peer, &imported(&peer, "dnsmasq.conf"));
}

/// Configurations in the shape of public ones, with other names and addresses: each answers 200 names as before, but for
/// those that the importer says of.
#[rstest]
#[case::unbound_behind_a_vpn("unbound-vpn-gateway", &[])]
#[case::unbound_of_a_homelab("unbound-homelab", &[])]
#[case::unbound_with_redirects("unbound-redirects", &[])]
#[case::unbound_with_a_split_horizon("unbound-split", &["pay.example."])]
#[case::dnsmasq_at_home("dnsmasq-home", &[])]
#[case::dnsmasq_of_a_company("dnsmasq-company", &["www.lan.example.", "pay.example."])]
#[case::dnsmasq_that_blocks("dnsmasq-blocking", &[])]
#[case::named_as_debian_ships_it("named-debian", &[])]
#[case::named_as_maas_writes_it("named-maas", &[])]
#[case::named_with_the_zones_of_rfc_1912("named-rfc1912", &[])]
fn a_configuration_like_public_ones_answers_200_names_as_before(#[case] name: &str, #[case] differ: &[&str]) {
    let site = Site::start();
    let (vpc, rest) = site.ports();
    let (program, _) = name.split_once('-').unwrap();
    let package = match program {
        "named" => "bind9",
        "dnsmasq" => "dnsmasq-base",
        program => program,
    };
    let peer = Peer::start(program, package, &Query::a("probe.example."), |folder, port| {
        let fill = |text: String| {
            let places = [("%PORT%", port.to_string()), ("%VPC%", vpc.to_string()), ("%REST%", rest.to_string())];
            let text = places.iter().fold(text, |text, (place, value)| text.replace(place, value));
            text.replace("%FOLDER%", &folder.display().to_string())
        };
        copy(&data("compared").join("zones"), folder, &fill);
        copy(&data("compared").join(name), folder, &fill);
        let mut command = Command::new(program);
        command.args(match program {
            "named" => &["-g", "-n", "1", "-c"][..],
            "dnsmasq" => &["-k", "-C"],
            _ => &["-d", "-c"],
        });
        command.arg(folder.join(format!("{program}.conf")));
        command
    });
    answers_alike_but_for(&peer, &imported(&peer, &format!("{program}.conf")), differ);
}

/// Copies a folder of text files.
fn copy(from: &Path, to: &Path, fill: &dyn Fn(String) -> String) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target, fill);
        } else {
            fs::write(target, fill(fs::read_to_string(path).unwrap())).unwrap();
        }
    }
}

/// What cannot be the same is said, and does not bring what was not asked for: networks that are private for some alone.
#[test]
fn a_part_of_the_private_networks_is_not_made_all_of_them() {
    let scratch = tempfile::tempdir().unwrap();
    let conf = "server:\n private-address: 192.168.0.0/16\nforward-zone:\n name: .\n forward-addr: 10.1.1.1\n";
    fs::write(scratch.path().join("unbound.conf"), conf).unwrap();
    let output = import(scratch.path(), &["unbound.conf"]);
    assert_eq!(output.status.code(), Some(1), "{}", text_of(&output));
    assert!(text_of(&output).contains("unbound.conf:2: not carried over: private-address 192.168.0.0/16"));
    assert!(!text(&output.stdout).contains("rebind ="), "{}", text(&output.stdout));
}

fn text_of(output: &Output) -> String {
    text(&output.stdout) + &text(&output.stderr)
}

#[test]
fn examples_of_the_guide_can_be_imported() {
    let guide = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coming-from.md")).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    for language in ["yaml", "ini", "c", "text"] {
        let (_, block) = guide.split_once(&format!("\n```{language}\n")).unwrap();
        let (block, _) = block.split_once("\n```\n").unwrap();
        fs::write(scratch.path().join("x"), block).unwrap();
        let output = import(scratch.path(), &["x"]);
        let toml = text(&output.stdout);
        assert!(output.status.code().is_some_and(|code| code < 2), "{language}: {}", text(&output.stderr));
        for part in
            ["servers = [\"10.20.1.10\", \"10.20.2.10\"]", "zones = [\"amazonaws.com\"]", "lab.example", "10.1.1.1"]
        {
            assert!(toml.contains(part), "{language}: {part} in {toml}");
        }
    }
}
