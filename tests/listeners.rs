//! Encrypted listeners, and the bounds on what clients may do, seen by clients that others wrote: kdig (knot-dnsutils)
//! over TLS, HTTPS and QUIC, curl over HTTP.

mod support;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, TcpStream, UdpSocket},
    process::{Command, Output},
    time::Duration,
};

use rstest::rstest;
use support::{
    authority::Validity,
    client::{Client, Next},
    config::Config,
    eventually,
    query::{Query, rtype},
    records::Reply,
    site::{NAME, Site},
    tidegate::{Tidegate, run},
    upstream::{Upstream, frame},
};

impl Site {
    /// What kdig says over this transport.
    fn kdig(&self, transport: &str, words: &[&str]) -> String {
        let address = self.address(transport);
        let mut command = Command::new("kdig");
        command.args([&format!("@{}", address.ip()), "-p", &address.port().to_string(), "+timeout=10", "+retry=0"]);
        command.arg(format!("+tls-ca={}", self.ca().display())).arg(format!("+tls-hostname={NAME}"));
        match transport {
            "tls" => {}
            "https" => drop(command.arg(format!("+https={NAME}/dns-query"))),
            _ => drop(command.arg("+quic")),
        }
        text(&command.args(words).output().expect("kdig (package knot-dnsutils) is installed"))
    }

    /// Status and headers, and the body, that curl gets.
    fn curl(&self, words: &[&str]) -> (String, Vec<u8>) {
        let address = self.address("https");
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--max-time", "20", "--dump-header", "-", "--output", "-"])
            .arg("--cacert")
            .arg(self.ca())
            .args(["--resolve", &format!("{NAME}:{}:{}", address.port(), address.ip())])
            .args(words.iter().map(|word| word.replace("SITE", &format!("https://{NAME}:{}", address.port()))))
            .output()
            .expect("curl is installed");
        let end = output.stdout.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or_default();
        let (head, body) = output.stdout.split_at((end + 4).min(output.stdout.len()));
        (String::from_utf8_lossy(head).to_ascii_lowercase() + &String::from_utf8_lossy(&output.stderr), body.to_vec())
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[rstest]
#[case::tls("tls")]
#[case::https("https")]
#[case::quic("quic")]
fn a_client_of_others_resolves(#[case] transport: &str) {
    let site = Site::start();
    for words in [&["www.example"][..], &["www.example", "+dnssec"], &["other.example", "AAAA"]] {
        let said = site.kdig(transport, words);
        assert!(said.contains("status: NOERROR"), "{said}");
    }
    assert!(site.kdig(transport, &["www.example", "+short"]).contains("10.0.0.1"));
    let queries = site.tidegate.metric("tidegate_queries_total", &[("transport", transport), ("family", "4")]);
    assert!((queries - 4.0).abs() < 0.5, "{queries}");
    let server = format!("@{transport}://{}#{NAME}", site.address(transport));
    let ca = site.ca();
    let ours = run(&["query", "www.example", &server, "--ca", ca.to_str().expect("a plain path")]);
    assert!(ours.status.success() && text(&ours).contains("10.0.0.1"), "{}", text(&ours));
}

#[test]
fn updates_and_transfers_are_treated_as_over_udp() {
    let site = Site::start();
    let body = site.folder.path().join("update");
    let body_argument = format!("@{}", body.display());
    for (opcode, rcode) in [(4, 4), (5, 4), (0, 0)] {
        fs::write(&body, Query::a("www.example.").opcode(opcode).bytes()).expect("the folder is writable");
        let dns = ["--header", "content-type: application/dns-message", "--data-binary", &body_argument];
        let (head, message) = site.curl(&[&dns[..], &["SITE/dns-query"]].concat());
        assert!(head.starts_with("http/2 200"), "{head}");
        assert_eq!(message[3] & 0x0f, rcode, "opcode {opcode}");
    }
    for transport in ["tls", "quic"] {
        assert!(site.kdig(transport, &["example", "AXFR"]).contains("REFUSED"), "{transport}");
    }
}

#[test]
fn responses_are_padded_where_queries_are() {
    let site = Site::start();
    let said = site.kdig("tls", &["www.example", "+padding=128"]);
    assert!(said.contains("PADDING"), "{said}");
    assert!(said.contains("468 B"), "{said}");
}

#[test]
fn https_says_status_and_lifetime() {
    let site = Site::start();
    let mut query = Query::a("www.example.");
    query.id = 0;
    let query = query.bytes();
    let body = site.folder.path().join("query");
    fs::write(&body, &query).expect("the folder is writable");
    let body = format!("@{}", body.display());
    let post = ["--data-binary", &body, "SITE/dns-query"];
    let dns = ["--header", "content-type: application/dns-message"];
    let (head, message) = site.curl(&[&dns[..], &post].concat());
    assert!(head.starts_with("http/2 200") && head.contains("content-type: application/dns-message"), "{head}");
    let age = head.split_once("cache-control: max-age=").expect("it may be kept").1;
    let ttl = u32::from_be_bytes(message[message.len() - 10..message.len() - 6].try_into().expect("four octets"));
    assert_eq!(age.lines().next(), Some(&*ttl.to_string()), "{head}");
    let (head, _) = site.curl(&[&["--http1.1"], &dns[..], &post].concat());
    assert!(head.starts_with("http/1.1 200"), "{head}");
    let get = "SITE/dns-query?dns=AAABAAABAAAAAAAAA3d3dwdleGFtcGxlAAABAAE";
    assert!(site.curl(&[get]).0.starts_with("http/2 200"));
    for (status, words) in [
        ("400", &["SITE/dns-query"][..]),
        ("400", &["SITE/dns-query?dns=AAAA"]),
        ("400", &["SITE/dns-query?dns=*"]),
        ("404", &["SITE/other"]),
        ("405", &["-X", "PUT", "SITE/dns-query"]),
        ("415", &post),
    ] {
        let (head, _) = site.curl(words);
        assert!(head.starts_with(&format!("http/2 {status}")), "{words:?}: {head}");
    }
    let long = site.folder.path().join("long");
    fs::write(&long, vec![0; 70_000]).expect("the folder is writable");
    let long = format!("@{}", long.display());
    assert!(site.curl(&[&dns[..], &["--data-binary", &long, "SITE/dns-query"]].concat()).0.contains("http/2 413"));
    site.upstream.on("broken.example.", rtype::A, Reply::servfail());
    let broken = "SITE/dns-query?dns=AAABAAABAAAAAAAABmJyb2tlbgdleGFtcGxlAAABAAE";
    let (head, _) = site.curl(&[broken]);
    assert!(head.starts_with("http/2 200") && head.contains("cache-control: no-store"), "{head}");
}

#[test]
fn clients_of_the_plain_listeners_find_the_encrypted_ones() {
    let site = Site::start();
    let answer = site.tidegate.client().ask(&Query::new("_dns.resolver.arpa.", 64));
    let mut found: Vec<String> = answer.answers().iter().map(|record| record.data.to_string()).collect();
    found.sort_unstable();
    let port = |transport| site.address(transport).port();
    assert_eq!(
        found,
        [
            format!("1 {NAME}. alpn=dot, port={} ipv4hint=127.0.0.1,", port("tls")),
            format!(
                "2 {NAME}. alpn=h2,http/1.1, port={} ipv4hint=127.0.0.1, unknown7=\"/dns-query{{?dns}}\",",
                port("https")
            ),
            format!("3 {NAME}. alpn=doq, port={} ipv4hint=127.0.0.1,", port("quic")),
        ]
    );
    let address = site.tidegate.address();
    let plain =
        ["-p", &address.port().to_string(), &format!("@{}", address.ip()), "_dns.resolver.arpa", "TYPE64", "+short"]
            .map(str::to_owned);
    let said = text(&Command::new("kdig").args(plain).output().expect("kdig (package knot-dnsutils) is installed"));
    assert_eq!(said.lines().filter(|line| line.contains(&format!(" {NAME}. "))).count(), 3, "{said}");
    // Another certificate, another target.
    let (chain, key) = site.authority.issue_for(&["other.corp.example"], Validity::Now).pem();
    fs::write(site.folder.path().join("key.pem"), key).expect("the folder is writable");
    fs::write(site.folder.path().join("chain.pem"), chain).expect("the folder is writable");
    eventually("the target is the certificate's name", || {
        let answer = site.tidegate.client().ask(&Query::new("_dns.resolver.arpa.", 64));
        answer.answers().iter().all(|record| record.data.to_string().contains("other.corp.example."))
    });
}

#[test]
fn a_certificate_that_changes_on_disk_is_used() {
    let site = Site::start();
    assert!(site.kdig("tls", &["www.example", "+short"]).contains("10.0.0.1"));
    let left = || site.tidegate.metric("tidegate_certificate_expiry_seconds", &[]);
    assert!(left() > 1e9, "{}", left());
    // One that has expired, so that a client can tell.
    site.certify(Validity::Past);
    eventually("the other certificate is shown", || left() < 0.0);
    assert!(!site.kdig("tls", &["www.example", "+short"]).contains("10.0.0.1"));
    site.tidegate.await_logged("WARN", "has expired");
    fs::write(site.folder.path().join("chain.pem"), "nothing").expect("the folder is writable");
    site.tidegate.await_logged("WARN", "cannot be used");
    assert!(left() < 0.0, "the one in use stays");
    site.certify(Validity::Now);
    eventually("the new one is used", || left() > 1e9);
    assert!(site.kdig("tls", &["www.example", "+short"]).contains("10.0.0.1"));
}

#[rstest]
#[case::plain("listen")]
#[case::encrypted("tls")]
fn half_messages_keep_nobody_out(#[case] transport: &str) {
    let site = Site::start_with("", "tcp_per_client = 20\ntcp_idle = \"1h\"");
    let address = if transport == "listen" { site.tidegate.address() } else { site.address(transport) };
    let mut kept = Vec::new();
    for _ in 0..60 {
        let mut stream = TcpStream::connect(address).expect("it accepts");
        stream.write_all(&[0]).expect("it takes an octet");
        kept.push(stream);
        if transport == "listen" {
            let mut stream = Client::new(address).stream();
            stream.send(&Query::a("www.example."));
            assert_eq!(stream.receive().address_texts(), ["10.0.0.1"]);
        } else {
            break;
        }
    }
    if transport == "tls" {
        kept.extend((0..60).map(|_| TcpStream::connect(address).expect("it accepts")));
        kept.iter().for_each(|stream| stream.set_nonblocking(true).expect("it can be changed"));
        let is_closed = |stream: &&TcpStream| {
            matches!(stream.peek(&mut [0]), Ok(0)) || stream.take_error().is_ok_and(|error| error.is_some())
        };
        eventually("all were accepted", || kept.iter().filter(is_closed).count() >= 40);
        assert!(site.kdig("tls", &["www.example", "+short"]).contains("10.0.0.1"));
    }
    let open = || site.tidegate.metric("tidegate_connections", &[]);
    eventually("the bound holds", || open() <= 20.0);
}

#[test]
fn a_client_that_does_not_read_holds_little() {
    let site = Site::start();
    site.upstream.on("big.example.", rtype::A, Reply::addresses(3000));
    let query = frame(&Query::a("big.example.").bytes());
    let mut first = site.tidegate.client().stream();
    first.send(&Query::a("big.example."));
    first.receive();
    let before = site.tidegate.resident_kib();
    let queries = query.repeat(2000);
    let greedy: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(site.tidegate.address()).expect("it accepts");
            stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a positive time-out");
            // It takes what it has room for.
            drop(stream.write_all(&queries));
            stream
        })
        .collect();
    let after = site.tidegate.resident_kib();
    assert!(after < before + 20 * 512 + 8192, "{before} KiB, then {after} KiB");
    let mut honest = site.tidegate.client().stream();
    honest.send(&Query::a("www.example."));
    assert_eq!(honest.receive().address_texts(), ["10.0.0.1"]);
    drop(greedy);
}

/// A header for version 2 of the PROXY protocol that names an IPv4 client.
fn proxy_header(client: Ipv4Addr) -> Vec<u8> {
    let fixed = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c";
    [&fixed[..], &client.octets(), &[127, 0, 0, 1, 0x12, 0x34, 0, 53]].concat()
}

#[test]
fn a_balancer_names_the_client() {
    let server = "proxy_protocol = [\"127.0.0.1/32\"]\nallow = [\"10.0.0.0/8\", \"127.0.0.2/32\"]";
    let site = Site::start_with(server, "");
    let ask = |header: &[u8]| {
        let mut stream = TcpStream::connect(site.tidegate.address()).expect("it accepts");
        stream.set_read_timeout(Some(support::PATIENCE)).expect("a positive time-out");
        stream.write_all(&[header, &frame(&Query::a("www.example.").bytes())].concat()).expect("it takes a query");
        let mut answer = [0; 512];
        let read = stream.read(&mut answer).unwrap_or_default();
        (read > 6).then(|| answer[5] & 0x0f)
    };
    assert_eq!(ask(&proxy_header(Ipv4Addr::new(10, 1, 1, 1))), Some(0));
    assert_eq!(ask(&proxy_header(Ipv4Addr::new(192, 0, 2, 1))), Some(5), "REFUSED: it is not served");
    assert_eq!(ask(b""), None, "without a header there is no answer");
    let over_udp = |header: &[u8]| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        socket.set_read_timeout(Some(support::PATIENCE)).expect("a positive time-out");
        let query = [header, &Query::a("www.example.").bytes()].concat();
        socket.send_to(&query, site.tidegate.address()).expect("loopback takes it");
        let mut answer = [0; 512];
        socket.recv(&mut answer).expect("an answer");
        answer[3] & 0x0f
    };
    assert_eq!(over_udp(&proxy_header(Ipv4Addr::new(10, 1, 1, 1))), 0);
    assert_eq!(over_udp(&proxy_header(Ipv4Addr::new(192, 0, 2, 1))), 5);
    let other = site.tidegate.client().at("127.0.0.2").ask(&Query::a("www.example."));
    assert_eq!(other.address_texts(), ["10.0.0.1"], "others need no header");
}

/// A balancer that begins a header and does not go on: its connection is closed in time, and takes no client's place.
#[rstest]
#[case::nothing(0)]
#[case::of_the_signature(5)]
#[case::of_the_fixed_part(14)]
#[case::of_the_addresses(20)]
fn half_a_proxy_header_holds_nothing_for_long(#[case] octets: usize) {
    let server = "proxy_protocol = [\"127.0.0.1/32\"]";
    let site = Site::start_with(server, "tcp_idle = \"500ms\"\ntcp_per_client = 3");
    let header = proxy_header(Ipv4Addr::new(10, 1, 1, 1));
    let sends = |octets: &[u8]| {
        let mut stream = TcpStream::connect(site.tidegate.address()).expect("it accepts");
        stream.set_read_timeout(Some(support::PATIENCE)).expect("a positive time-out");
        stream.write_all(octets).expect("it takes some octets");
        stream
    };
    let kept: Vec<TcpStream> = (0..50).map(|_| sends(&header[..octets])).collect();
    let mut whole = sends(&[&header[..], &frame(&Query::a("www.example.").bytes())].concat());
    let mut answer = [0; 6];
    whole.read_exact(&mut answer).expect("an answer beside fifty half headers");
    assert_eq!(answer[5] & 0x0f, 0);
    for mut stream in kept {
        let closed = stream.read(&mut [0]);
        assert!(!closed.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock), "{closed:?}");
    }
}

#[test]
fn a_client_over_its_rate_comes_back_over_a_stream() {
    let site = Site::start_with("", "client_qps = 5\nclient_burst = 10\nexempt = [\"127.0.0.9/32\"]");
    let client = site.tidegate.client();
    let query = Query::a("www.example.");
    assert_eq!(client.ask_over_tcp(&query).address_texts(), ["10.0.0.1"]);
    let flood = |from: &str| {
        let socket = client.at(from).socket();
        for _ in 0..200 {
            socket.send(&query);
        }
        let mut answered = Vec::new();
        socket.set_patience(Duration::from_millis(500));
        while let Ok(Some(answer)) = socket.try_receive() {
            answered.push(answer.truncated());
        }
        answered
    };
    let answered = flood("127.0.0.1");
    let truncated = answered.iter().filter(|&&truncated| truncated).count();
    assert!((10..=20).contains(&(answered.len() - truncated)), "{answered:?}");
    assert!((20..=25).contains(&truncated), "{answered:?}");
    site.tidegate.await_metric("tidegate_dropped_total", &[("reason", "rate_limited")], 100.0);
    assert_eq!(client.ask_over_tcp(&query).address_texts(), ["10.0.0.1"], "streams are free");
    assert_eq!(flood("127.0.0.9").len(), 200, "exempt");
    // A cookie of ours shows that the address is the client's.
    let first = client.at("127.0.0.9").ask_over_tcp(&query.clone().option(10, b"12345678"));
    assert!(first.option_codes().contains(&10));
}

#[test]
fn a_connection_without_a_query_is_closed() {
    let site = Site::start_with("", "tcp_idle = \"300ms\"");
    let mut stream = site.tidegate.client().stream();
    assert!(matches!(stream.next(), Next::Closed));
    for transport in ["tls", "https"] {
        let mut stream = TcpStream::connect(site.address(transport)).expect("it accepts");
        stream.set_read_timeout(Some(support::PATIENCE)).expect("a positive time-out");
        // No handshake ever begins.
        assert!(matches!(stream.read(&mut [0; 16]), Ok(0)), "{transport}");
    }
}

/// What `openssl req -x509` makes by default, and a newcomer tries first.
#[test]
fn a_ca_used_as_a_server_certificate_is_reported() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let keys = rcgen::KeyPair::generate().expect("a key");
    let mut params = rcgen::CertificateParams::new(vec![NAME.to_owned()]).expect("a name");
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    let pem = params.self_signed(&keys).expect("a certificate").pem();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    fs::write(&chain, pem).expect("the folder is writable");
    fs::write(&key, keys.serialize_pem()).expect("the folder is writable");
    let upstream = Upstream::answering("10.0.0.1");
    let listeners = "tls = [\"127.0.0.1:0\"]\nhttps = [\"127.0.0.1:0\"]\nquic = [\"127.0.0.1:0\"]";
    let config = Config::forwarding_to(&[&upstream])
        .raw(&format!("[server.tls]\n{listeners}\ncertificate = {chain:?}\nkey = {key:?}"));
    let tidegate = Tidegate::start(&config);
    tidegate.await_logged("WARN", "is a CA's: clients will refuse it");
    for transport in ["tls", "https", "quic"] {
        let says = format!("({transport})");
        let line = tidegate.log().into_iter().find(|line| line.contains(&says)).expect("it listens");
        let fields: serde_json::Value = serde_json::from_str(&line).expect("lines are JSON");
        let address = fields["fields"]["address"].as_str().expect("an address");
        let server = format!("@{transport}://{address}#{NAME}");
        let output = run(&["query", "www.example", &server, "--ca", &chain.display().to_string()]);
        assert_eq!(output.status.code(), Some(2), "{}", text(&output));
        let said = text(&output);
        assert!(said.contains("it is a CA's own and not one for servers"), "{transport}: {said}");
        assert!(!said.contains("OtherError"), "{transport}: {said}");
    }
}
