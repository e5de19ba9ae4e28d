//! The verbs of the command line, their output and their exit codes.

mod support;

use std::{fs, net::TcpListener, process::Output};

use rstest::rstest;
use support::{
    config::Config,
    query::rtype,
    records::{Record, Reply},
    tidegate::{Tidegate, run},
    upstream::Upstream,
};

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[rstest]
#[case::serve("serve")]
#[case::check("check")]
#[case::demo("demo")]
#[case::query("query")]
#[case::discover("discover")]
#[case::doctor("doctor")]
#[case::perimeter("perimeter")]
#[case::presets("presets")]
#[case::schema("schema")]
#[case::reload("reload")]
#[case::drain("drain")]
#[case::undrain("undrain")]
#[case::flush("flush")]
#[case::log("log")]
#[case::cache("cache")]
#[case::import("import")]
#[case::top("top")]
#[case::version("version")]
#[case::completions("completions")]
#[case::man("man")]
fn every_verb_explains_itself(#[case] verb: &str) {
    let output = run(&[verb, "--help"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let example = text(&output)
        .rsplit_once("Example: ")
        .is_some_and(|(_, example)| example.contains(&format!("tidegate {verb}")));
    assert!(example, "an example: {}", text(&output));
}

#[test]
fn an_unknown_verb_is_an_error() {
    assert_eq!(run(&["fly"]).status.code(), Some(2));
}

#[test]
fn errors_of_the_system_are_in_words_alone() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let config = folder.path().join("t.toml").display().to_string();
    let rule = "[[forward]]\nzones = [\".\", \"reverse:private\"]\nto = \"site\"\n";
    let missing = folder.path().join("missing").display().to_string();
    let text = format!("[upstream.site]\nservers = [\"system:{missing}\"]\n{rule}");
    fs::write(&config, text).expect("the folder is writable");
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port");
    let (udp, tcp) = (format!("@{closed}"), format!("@tcp://{closed}"));
    for (words, said) in [
        (&["query", "a.example", &*udp][..], "connection refused"),
        (&["query", "a.example", &*tcp], "connection refused"),
        (&["query", "a.example", "@tls://127.0.0.1", "--ca", &*missing], "no such file or directory"),
        (&["query", "a.example", "--validate", "--anchor", &*missing, &*udp], "no such file or directory"),
        (&["check", &*config], "no such file or directory"),
    ] {
        let output = self::text(&run(words));
        assert!(output.contains(said) && !output.contains("os error"), "{words:?}: {output}");
    }
}

#[test]
fn help_is_a_verb_as_elsewhere() {
    let (asked, flagged) = (run(&["help", "explain"]), run(&["explain", "--help"]));
    assert_eq!((asked.status.code(), text(&asked)), (Some(0), text(&flagged)));
    assert_eq!(run(&["help"]).status.code(), Some(0));
}

/// What people write at first, and what they are told.
#[rstest]
#[case::wildcard(&["flush", "*.amazonaws.com"], "write --zone amazonaws.com")]
#[case::network(&["flush", "10.0.0.0/8"], "write --zone 10.0.0.0/8")]
#[case::wide_network(&["flush", "--zone", "10.0.0.0/7"], "write one of them: 10.in-addr.arpa. 11.in-addr.arpa.")]
#[case::address(&["doctor", "10.1.2.3"], "this is an address")]
#[case::address_of_another_type(&["explain", "a.example", "AAAA", "--address", "10.1.2.3"], "is in no answer to AAAA")]
#[case::server_without_port(&["test", "--live", "--server", "dns"], "write it as 127.0.0.1")]
#[case::future(&["perimeter", "--from", "2999-01-01"], "the first day is still to come")]
fn a_first_try_is_told_what_to_write(#[case] words: &[&str], #[case] said: &str) {
    let output = run(words);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains(said), "{}", text(&output));
}

#[test]
fn a_configuration_and_expectations_are_told_apart() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (config, cases) = (path("t.toml"), path("e.toml"));
    let rule = "[upstream.site]\nservers = [\"10.1.1.53\"]\n[[forward]]\nzones = [\".\"]\nto = \"site\"\n";
    fs::write(&config, rule).expect("the folder is writable");
    fs::write(&cases, "config = \"t.toml\"\n[[case]]\nname = \"a.example\"\nrule = \".\"\n").expect("so it is");
    let output = run(&["test", &config]);
    assert!(text(&output).contains("this looks like a configuration: name it with --config"), "{}", text(&output));
    let output = run(&["check", &cases]);
    assert!(text(&output).contains("this looks like a file of expectations"), "{}", text(&output));
    // A rule without a name is called by its first zone.
    let output = run(&["test", &cases]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    fs::write(&cases, "config = \"t.toml\"\n[[case]]\nname = \"a.example\"\nrule = \"aws\"\n").expect("so it is");
    let output = run(&["test", &cases]);
    assert!(text(&output).contains("rule is \".\", and should be \"aws\""), "{}", text(&output));
}

#[test]
fn presets_name_the_families() {
    let output = run(&["presets"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    for family in ["preset:aws", "amazonaws.com", "api.aws", "compute.internal", "ec2.internal"] {
        assert!(text(&output).contains(family), "{family} in {}", text(&output));
    }
}

#[test]
fn output_has_no_colour_where_there_is_no_terminal() {
    for arguments in [&["presets"][..], &["--help"], &["check", "/nonexistent.toml"]] {
        let output = run(arguments);
        assert!(!text(&output).contains('\u{1b}'), "{arguments:?}: {}", text(&output));
    }
}

/// `script` gives the verb a terminal.
#[test]
fn a_terminal_has_colour_unless_no_color_is_set() {
    let shown = |variables: &[&str], verb: &str| {
        let line = format!("{} {verb}", env!("CARGO_BIN_EXE_tidegate"));
        let mut command = std::process::Command::new("env");
        command.args(["-u", "NO_COLOR", "TERM=xterm"]).args(variables).args(["script", "-qec", &line, "/dev/null"]);
        let output = command.stdin(std::process::Stdio::null()).output().expect("script is installed");
        text(&output)
    };
    for verb in ["--help", "query --help", "check /nonexistent.toml", "fly"] {
        assert!(shown(&[], verb).contains("\u{1b}["), "{verb}: {}", shown(&[], verb));
        for plain in ["NO_COLOR=1", "TERM=dumb"] {
            assert!(!shown(&[plain], verb).contains('\u{1b}'), "{verb} with {plain}: {}", shown(&[plain], verb));
        }
        assert!(shown(&["NO_COLOR="], verb).contains("\u{1b}["), "an empty variable is one that is not set");
    }
}

#[test]
fn query_prints_the_answer_and_tells_by_its_exit_code() {
    let mut upstream = Upstream::answering("10.0.0.1");
    upstream.on(
        "alias.example.",
        rtype::A,
        Reply::of([Record::cname("@", 300, "www.example."), Record::a("www.example.", 300, "10.0.0.7")]),
    );
    upstream.on("broken.example.", rtype::A, Reply::servfail());
    upstream.on("secret.example.", rtype::A, Reply::refused());
    let server = format!("@{}", upstream.address);

    let answered = run(&["query", "alias.example", &server]);
    assert_eq!(answered.status.code(), Some(0), "{}", text(&answered));
    assert!(text(&answered).contains("10.0.0.7") && text(&answered).contains("www.example"), "{}", text(&answered));
    assert_eq!(run(&["query", "none.example", "TXT", &server]).status.code(), Some(0), "NXDOMAIN is an answer");
    assert_eq!(run(&["query", "broken.example", "A", &server]).status.code(), Some(1));
    assert_eq!(run(&["query", "secret.example", "A", &server]).status.code(), Some(1));
    upstream.stop();
    assert_eq!(run(&["query", "www.example", "A", &server]).status.code(), Some(2));
}

#[test]
fn query_asks_for_the_name_of_an_address_and_for_several_types() {
    let upstream = Upstream::answering("10.0.0.1");
    upstream.on("8.7.1.10.in-addr.arpa.", rtype::PTR, Reply::of([Record::ptr("@", 300, "printer.corp.example.")]));
    upstream.on("broken.example.", rtype::AAAA, Reply::servfail());
    let server = format!("@{}", upstream.address);
    let v6 = format!("1.{}d.f.ip6.arpa.", "0.".repeat(29));
    upstream.on(&v6, rtype::PTR, Reply::of([Record::ptr("@", 300, "six.corp.example.")]));

    for words in [&["query", "10.1.7.8", &server][..], &["query", &server, "10.1.7.8", "PTR"]] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        assert!(text(&output).contains("printer.corp.example."), "{}", text(&output));
    }
    let output = run(&["query", "fd00::1", &server]);
    assert!(text(&output).contains("six.corp.example."), "{}", text(&output));

    let output = run(&["query", "www.example", "A", "AAAA", "a", &server]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    let asked: Vec<String> =
        text(&output).lines().filter(|l| l.starts_with("www.example")).map(str::to_owned).collect();
    assert_eq!(asked, ["www.example. A  NOERROR", "www.example. AAAA  NOERROR"], "in the order given, each once");
    let output = run(&["query", "www.example", "A", "AAAA", &server, "--json"]);
    let documents: Vec<serde_json::Value> =
        text(&output).lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect();
    assert_eq!([&documents[0]["type"], &documents[1]["type"]], ["A", "AAAA"]);
    assert_eq!(run(&["query", "broken.example", "AAAA", "A", &server]).status.code(), Some(1), "the worst of them");

    for (words, part) in [
        (&["query", "www.example", "@127.0.0.1", "@127.0.0.2"][..], "\"@127.0.0.2\" is a second server"),
        (&["query", "www.example", "A", "QUAD"], "\"QUAD\" is no record type"),
        (&["explain", "www.example", "QUAD"], "\"QUAD\" is no record type"),
        (&["query", "s3..foo"], "\"s3..foo\" is no name: it has an empty label"),
        (&["query", "@127.0.0.1"], "no name to ask for"),
    ] {
        let output = run(words);
        assert_eq!(output.status.code(), Some(2), "{words:?}");
        assert!(text(&output).contains(part), "{words:?}: {}", text(&output));
    }
}

#[test]
fn version_knows_the_commit_in_a_clone_and_else_says_why_not() {
    let output = run(&["version", "--json"]);
    let version: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let revision = version["revision"].as_str().expect("a revision");
    let said = text(&run(&["version"]));
    match version["revision_unknown"].as_str() {
        Some(why) => assert!(revision == "unknown" && said.contains(&format!("commit   unknown: {why}")), "{said}"),
        None => {
            let commit = revision.strip_suffix("+changes").unwrap_or(revision);
            assert!(commit.len() >= 7 && commit.bytes().all(|byte| byte.is_ascii_hexdigit()), "{version}");
            assert!(said.contains(&format!("commit   {revision}")), "{said}");
        }
    }
    let is_clone = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(".git").exists();
    assert!(!is_clone || version["revision_unknown"].is_null(), "this is a clone: {version}");
    assert!(said.contains(&format!("tidegate {}", env!("CARGO_PKG_VERSION"))), "{said}");
}

#[test]
fn query_says_in_words_why_it_was_refused() {
    let upstream = Upstream::answering("10.0.0.1");
    let config = Config::new().upstream("site", &[&upstream], "").forward("only", &["example"], "site", "");
    let tidegate = Tidegate::start(&config);
    let output = run(&["query", "www.elsewhere.org", &format!("@{}", tidegate.address())]);

    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    assert!(text(&output).contains("REFUSED") && text(&output).contains("Not Authoritative"), "{}", text(&output));
}

#[test]
fn query_takes_one_server_and_its_usage_says_so() {
    let help = text(&run(&["query", "--help"]));
    assert!(help.contains("Usage: tidegate query [OPTIONS] NAME [TYPE]... [@SERVER]"), "{help}");
    let output = run(&["query", "www.example", "@10.1.1.53:0"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("port 0 is no port of a server"), "{}", text(&output));
    let output = run(&["query", "www.example", "@10.1.1.53:x"]);
    assert!(text(&output).contains("a number from 1 to 65535"), "{}", text(&output));
}

/// `script` gives the verb a terminal.
#[test]
fn the_manual_on_a_terminal_is_no_roff() {
    let line = format!("{} man check", env!("CARGO_BIN_EXE_tidegate"));
    let show = |path: &str| {
        let mut command = std::process::Command::new("script");
        command.args(["-qec", &line, "/dev/null"]).envs([("PAGER", "cat"), ("MANPAGER", "cat"), ("TERM", "dumb")]);
        if !path.is_empty() {
            command.env("PATH", path);
        }
        text(&command.stdin(std::process::Stdio::null()).output().expect("script is installed"))
    };
    let shown = show("");
    assert!(shown.contains("and its routing table") && !shown.contains(".SH"), "{shown}");
    // Without man there is roff, and a word about it.
    let folder = tempfile::tempdir().expect("a temporary folder");
    for program in ["script", "sh"] {
        let found = ["/usr/bin", "/bin"].map(|place| std::path::Path::new(place).join(program));
        let target = found.iter().find(|path| path.exists()).expect("it is installed");
        std::os::unix::fs::symlink(target, folder.path().join(program)).expect("the folder is writable");
    }
    let shown = show(&folder.path().display().to_string());
    assert!(shown.contains(".SH SYNOPSIS") && shown.contains("this is roff"), "{shown}");
}
