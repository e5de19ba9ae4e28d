//! The perimeter report, from queries over real sockets to the verb's exit code.

mod support;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    thread,
};

use serde_json::Value;
use support::{query::Query, tidegate::run};
use tidegate::{config::Plan, daemon::Daemon, perimeter::document::PerimeterDocument};

use crate::support::{
    client::Client,
    query::rtype,
    records::{Record, Reply},
    upstream::Upstream,
};

/// A daemon in this process with one guarded rule for `preset:aws`.
fn guarded(upstream: &Upstream, on_public: &str) -> Daemon {
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:0\"]\nworkers = 1\n[admin]\nhttp = \"\"\nsocket = \"\"\n\
         [upstream.vpc]\nservers = [\"{}\"]\nattempts = 1\nhedge = false\ntimeout = \"3s\"\n\
         [[forward]]\nname = \"aws\"\nzones = [\"preset:aws\"]\nto = \"vpc\"\nprivate = [\"10.20.0.0/16\"]\n\
         on_public = \"{on_public}\"\nexcept = [\"iam.amazonaws.com\"]\n\
         [[forward]]\nname = \"rest\"\nzones = [\".\"]\nto = \"vpc\"\n",
        upstream.address
    );
    let plan = Plan::from_text("t.toml", &text).expect("a valid configuration");
    Daemon::start(&plan.boot, plan.live, None).expect("it starts")
}

fn page(daemon: &Daemon) -> Value {
    serde_json::to_value(PerimeterDocument::of(&daemon.engine().perimeter)).expect("it is a document")
}

fn line<'a>(page: &'a Value, name: &str) -> Option<&'a Value> {
    page["names"].as_array().expect("names").iter().find(|line| line["name"] == name)
}

#[test]
fn aws_names_have_a_verdict_and_others_are_not_noted() {
    let upstream = Upstream::answering("10.20.0.1");
    upstream.on("sts.eu-west-1.amazonaws.com.", rtype::A, Reply::a("52.1.2.3"));
    upstream.on("x.vpc-lattice-svcs.eu-west-1.on.aws.", rtype::A, Reply::a("169.254.171.7"));
    upstream.on("none.amazonaws.com.", rtype::A, Reply::nxdomain(60));
    upstream.on("iam.amazonaws.com.", rtype::A, Reply::a("52.9.9.9"));
    for on_public in ["log", "strip", "refuse"] {
        let daemon = guarded(&upstream, on_public);
        let client = Client::new(daemon.addresses()[0]);
        for name in ["kms.eu-west-1", "sts.eu-west-1", "none", "iam"] {
            client.ask(&Query::a(&format!("{name}.amazonaws.com.")));
        }
        client.ask(&Query::a("x.vpc-lattice-svcs.eu-west-1.on.aws."));
        client.ask(&Query::a("www.example."));
        client.at("127.0.0.2").ask(&Query::a("sts.eu-west-1.amazonaws.com."));

        let page = page(&daemon);
        for (name, verdict, excepted) in [
            ("kms.eu-west-1.amazonaws.com.", "private", false),
            ("sts.eu-west-1.amazonaws.com.", "public", false),
            ("x.vpc-lattice-svcs.eu-west-1.on.aws.", "unreachable-private", false),
            ("none.amazonaws.com.", "absent", false),
            ("iam.amazonaws.com.", "public", true),
        ] {
            let line = line(&page, name).unwrap_or_else(|| panic!("{name} in {page}"));
            assert_eq!((&line["verdict"], &line["excepted"]), (&verdict.into(), &excepted.into()), "{line}");
            assert_eq!(line["rule"], "aws", "{line}");
        }
        assert!(line(&page, "www.example.").is_none(), "{page}");
        assert_eq!(page["public"], 1, "{page}");
        let outcome = ["leaked", "stripped", "refused"].map(|outcome| page[outcome].as_u64());
        let expected = ["log", "strip", "refuse"].map(|action| Some(u64::from(action == on_public)));
        assert_eq!(outcome, expected, "{page}");
        let iam = line(&page, "iam.amazonaws.com.").expect("it was asked for");
        assert_eq!(iam["outcome"], "excepted");
        let sts = line(&page, "sts.eu-west-1.amazonaws.com.").expect("it was asked for");
        assert_eq!(sts["remedy"]["service"], "com.amazonaws.eu-west-1.sts");
        assert_eq!(sts["address"], "52.1.2.3");
        // A refusal is remembered for a moment, but counts for each client; other answers are hits.
        assert_eq!(sts["clients"], if on_public == "refuse" { 2 } else { 1 }, "{on_public}: {sts}");
        daemon.stop();
    }
}

#[test]
fn an_alias_is_noted_by_the_name_it_leads_to() {
    let upstream = Upstream::answering("10.20.0.1");
    upstream.on(
        "files.corp.example.",
        rtype::A,
        Reply::of([
            Record::cname("@", 300, "b.s3.eu-west-1.amazonaws.com."),
            Record::a("b.s3.eu-west-1.amazonaws.com.", 300, "52.1.2.3"),
        ]),
    );
    let daemon = guarded(&upstream, "refuse");
    let answer = Client::new(daemon.addresses()[0]).ask(&Query::a("files.corp.example."));
    assert_eq!(answer.address_texts(), ["10.20.0.1"], "asked again through its rule");
    let page = page(&daemon);
    let line = line(&page, "b.s3.eu-west-1.amazonaws.com.").unwrap_or_else(|| panic!("{page}"));
    assert_eq!(line["verdict"], "private");
    daemon.stop();
}

#[test]
fn a_hit_is_not_noted() {
    let upstream = Upstream::answering("10.20.0.1");
    let daemon = guarded(&upstream, "refuse");
    let client = Client::new(daemon.addresses()[0]);
    for _ in 0..3 {
        client.ask(&Query::a("kms.eu-west-1.amazonaws.com."));
    }
    let page = page(&daemon);
    let line = line(&page, "kms.eu-west-1.amazonaws.com.").unwrap_or_else(|| panic!("{page}"));
    assert_eq!(line["answers"]["private"], 1, "{line}");
    daemon.stop();
}

/// Answers one HTTP request with this.
fn serve_once(response: String) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the verb connects");
        let mut request = Vec::new();
        let mut octet = [0; 1];
        while !request.ends_with(b"\r\n\r\n") && stream.read(&mut octet).is_ok_and(|read| read == 1) {
            request.extend(octet);
        }
        let request = String::from_utf8(request).expect("a request in ASCII");
        let is_right = request.starts_with("GET /api/v1/perimeter HTTP/1.1\r\n")
            && request.contains(&format!("\r\nHost: {address}\r\n"));
        let response = if is_right { response } else { "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned() };
        stream.write_all(response.as_bytes()).expect("the verb reads");
    });
    address
}

#[test]
fn the_verb_tells_by_its_exit_code_whether_anything_leaked() {
    let page = |leaked: u8| {
        let body =
            format!("{{\"since\":0,\"public\":3,\"refused\":3,\"leaked\":{leaked},\"given_up\":0,\"names\":[]}}");
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    };
    for (response, code) in [
        (page(0), 0),
        (page(2), 1),
        ("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n".to_owned(), 1),
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_owned(), 1),
        ("nonsense".to_owned(), 1),
    ] {
        let address = serve_once(response.clone());
        let output = run(&["perimeter", "--json", "--admin", &format!("http://{address}")]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{response}: {error}");
        assert!(!error.contains("says 400"), "the request is right: {error}");
    }
    let closed = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a free port");
    let output = run(&["perimeter", "--admin", &closed.to_string()]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("admin.http"), "it says what to do");
}
