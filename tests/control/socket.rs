//! The control socket itself: who may use it, when it is there, and what it withstands.

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

use crate::{
    Place, ask,
    support::{
        eventually,
        tidegate::{Tidegate, run},
        upstream::Upstream,
    },
};

#[test]
fn the_socket_is_for_its_owner_and_group_and_goes_with_the_daemon() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777, 0o660);
    // Found by the configuration as well.
    let file = tidegate.folder().join("tidegate.toml");
    let output = run(&["reload", "--config", &file.display().to_string()]);
    assert_eq!(output.status.code(), Some(0));
    assert!(tidegate.stop().success());
    assert!(!place.socket().exists());
    let (code, text) = place.says(&["reload"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("no daemon listens"), "{text}");
}

#[test]
fn orders_are_accepted_while_the_last_queries_are_answered() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = || place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config().section("server", "lameduck = \"1h\""));
    tidegate.signal("TERM");
    eventually("it is not ready any more", || tidegate.get("/readyz").0 == 503);
    assert!(place.order(&["flush", "--all"]).status.success());
    assert_eq!(ask(&tidegate, 1), ["10.0.0.1"]);
}

#[test]
fn the_umask_neither_opens_nor_closes_the_socket() {
    for umask in ["000", "077", "777"] {
        let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
        let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
        let script = format!("umask {umask}; exec \"$@\"");
        let tidegate = Tidegate::start_by(&["sh", "-c", &script, "sh"], &config);
        assert_eq!(fs::metadata(place.socket()).unwrap().permissions().mode() & 0o777, 0o660, "umask {umask}");
        drop(tidegate);
    }
}

#[test]
fn a_socket_that_cannot_be_made_is_one_warning_and_a_dead_ones_file_is_replaced() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let start = |socket: &Path| {
        let config = place.config_at(socket).upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
        Tidegate::start(&config)
    };
    // A folder that is not there, one that nobody may write to, a name that is too long.
    let long = place.0.path().join("x".repeat(120));
    for path in [Path::new("/nowhere/control.sock"), Path::new("/proc/control.sock"), &long] {
        let nowhere = start(path);
        nowhere.logged_once("WARN", "no control socket");
        assert_eq!(ask(&nowhere, 1), ["10.0.0.1"]);
    }

    drop(UnixListener::bind(place.socket()).unwrap());
    let first = start(&place.socket());
    assert!(first.logged("WARN", "no control socket").is_empty());
    assert!(place.order(&["reload"]).status.success());
    let second = start(&place.socket());
    second.logged_once("WARN", "no control socket");
    assert!(second.stop().success());
    assert!(place.order(&["reload"]).status.success(), "the first has its socket still");

    let file = place.0.path().join("a file");
    fs::write(&file, "of somebody").unwrap();
    let third = start(&file);
    third.logged_once("WARN", "no control socket");
    assert_eq!(fs::read_to_string(&file).unwrap(), "of somebody");
}

#[test]
fn an_order_that_does_not_parse_is_refused_with_the_reason() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let _tidegate = Tidegate::start(&config);
    for (path, body, reason) in [
        ("drain", "", "missing field `server`"),
        ("log", "{\"level\":5}", "invalid type: integer `5`"),
        ("flush", "{\"all\":false}", "`all` must be true"),
        ("flush", "{\"name\":\"a..b\"}", "empty label"),
        ("flush", "{\"name\":\"a.example\",\"zone\":\"example\"}", "line 1"),
    ] {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        let length = body.len();
        let head = format!("POST /v1/{path} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\nConnection: close");
        stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        assert!(reply.starts_with("HTTP/1.1 400") && reply.contains(reason), "{path} {body}: {reply}");
    }
}

#[test]
fn garbage_on_the_socket_harms_nothing() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let huge =
        format!("POST /v1/flush HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    let silent: Vec<_> = (0..10).map(|_| UnixStream::connect(place.socket()).unwrap()).collect();
    for (bytes, says) in [
        (&b"\x16\x03\x01 not HTTP\r\n\r\n"[..], "400"),
        (b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nConnection: close\r\n\r\n{]}", "400"),
        (b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 12\r\nConnection: close\r\n\r\n{\"server\":1}", "400"),
        (b"POST /v1/halt HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "404"),
        (b"GET /v1/reload HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "405"),
        (huge.as_bytes(), "413"),
    ] {
        let mut stream = UnixStream::connect(place.socket()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        // A client that is refused early need not be read to the end.
        drop(stream.write_all(bytes));
        let mut reply = Vec::new();
        drop(stream.read_to_end(&mut reply));
        let reply = String::from_utf8_lossy(&reply);
        assert!(reply.starts_with(&format!("HTTP/1.1 {says}")), "{says}: {reply}");
    }
    drop(silent);
    let sockets = || {
        let links = fs::read_dir(format!("/proc/{}/fd", tidegate.pid())).unwrap().flatten();
        links
            .filter(|link| fs::read_link(link.path()).is_ok_and(|to| to.to_string_lossy().starts_with("socket:")))
            .count()
    };
    eventually("those have gone", || place.order(&["reload"]).status.success());
    let before = sockets();
    // Half of them say nothing, half stop in the middle of an order.
    let slow: Vec<_> = (0..100)
        .map(|n| {
            let mut stream = UnixStream::connect(place.socket()).unwrap();
            stream.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
            if n % 2 == 0 {
                drop(stream.write_all(b"POST /v1/drain HTTP/1.1\r\nHost: x\r\nContent-Length: 90\r\n\r\n{"));
            }
            stream
        })
        .collect();
    eventually("some are accepted", || sockets() > before);
    assert_eq!(ask(&tidegate, 2), ["10.0.0.1"]);
    eventually("they lose their places", || {
        assert!(sockets() <= before + 80, "{} sockets, {before} before", sockets());
        (&slow[0]).read(&mut [0; 16]).is_ok()
    });
    drop(slow);
    eventually("orders are taken", || place.order(&["reload"]).status.success());
    assert_eq!(ask(&tidegate, 1), ["10.0.0.1"]);
}
