//! tidegate as a sidecar: no file, only flags and variables, and several of them in one network.

mod support;

use std::{fs, net::TcpListener, path::Path, process::Output};

use support::{
    namespace,
    query::Query,
    tidegate::{Tidegate, run, run_with},
    upstream::Upstream,
};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_sidecar_needs_no_file() {
    namespace::inside("a_sidecar_needs_no_file", || {
        let (vpc, site) = (Upstream::answering("10.20.0.1"), Upstream::answering("10.1.0.1"));
        let (aws, default) = (vpc.address.to_string(), site.address.to_string());
        let expect = |tidegate: &Tidegate| {
            let ask = |name: &str| tidegate.client().ask(&Query::a(name)).address_texts();
            assert_eq!(ask("sts.us-east-1.amazonaws.com."), ["10.20.0.1"]);
            assert_eq!(ask("www.example."), ["10.1.0.1"]);
        };

        let flags = ["--listen", "127.0.0.1:0", "--aws", &aws, "--default", &default];
        expect(&Tidegate::start_without_file(&[], &flags));
        let variables = [("TIDEGATE_LISTEN", "127.0.0.1:0"), ("TIDEGATE_AWS", &aws), ("TIDEGATE_DEFAULT", &default)];
        expect(&Tidegate::start_without_file(&variables, &[]));
        // Flags beat variables.
        let crossed = [("TIDEGATE_LISTEN", "127.0.0.1:0"), ("TIDEGATE_AWS", &default), ("TIDEGATE_DEFAULT", &default)];
        expect(&Tidegate::start_without_file(&crossed, &["--aws", &aws]));
    });
}

#[test]
fn a_second_sidecar_in_one_network_has_pages_and_orders_of_its_own() {
    namespace::inside("a_second_sidecar_in_one_network_has_pages_and_orders_of_its_own", || {
        let upstream = Upstream::answering("10.1.0.1");
        let (default, folder) = (upstream.address.to_string(), tempfile::tempdir().expect("a temporary folder"));
        let flags = ["--listen", "127.0.0.1:0", "--default", &default];
        let socket = folder.path().join("one.sock").display().to_string();
        let one = Tidegate::start_without_file(&[("TIDEGATE_SOCKET", &socket)], &flags);

        // The pages of the first occupy the default address of a second one that does not set its own.
        let second = run(&["serve", "--listen", "127.0.0.1:0", "--default", &default, "--socket", "off"]);
        assert_eq!(second.status.code(), Some(1), "{}", said(&second));
        let line = said(&second);
        assert!(line.contains("cannot listen on 127.0.0.1:9153 for the status page and metrics"), "{line}");
        assert!(line.contains(&format!("it is in use by tidegate (pid {})", one.pid())), "{line}");
        assert!(line.contains("`http` in [admin], or --admin ADDR:PORT or --admin off"), "{line}");

        let other = folder.path().join("two.sock").display().to_string();
        let places = ["--admin", "127.0.0.1:9154", "--socket", &other];
        let two = Tidegate::start_without_file(&[], &[&flags[..], &places].concat());
        assert_eq!(two.get("/healthz").0, 200);
        for (socket, admin, daemon) in [(&socket, "127.0.0.1:9153", &one), (&other, "0.0.0.0:9154", &two)] {
            let address = daemon.address().to_string();
            for variables in [&[("TIDEGATE_SOCKET", &**socket)][..], &[("TIDEGATE_ADMIN", admin)]] {
                let status = run_with(variables, &["status"]);
                assert!(said(&status).contains(&format!("answers on {address}")), "{variables:?}: {}", said(&status));
            }
            let flushed = run_with(&[("TIDEGATE_SOCKET", &**socket)], &["flush", "--all"]);
            assert_eq!(flushed.status.code(), Some(0), "{}", said(&flushed));
        }

        // A third one without any.
        let three = Tidegate::start_without_file(&[], &[&flags[..], &["--admin", "off", "--socket", "off"]].concat());
        assert_eq!(three.client().ask(&Query::a("www.example.")).address_texts(), ["10.1.0.1"]);
        for (verb, variable) in [("perimeter", "TIDEGATE_ADMIN"), ("reload", "TIDEGATE_SOCKET")] {
            let output = run_with(&[(variable, "off")], &[verb]);
            assert_eq!(output.status.code(), Some(1), "{}", said(&output));
            assert!(said(&output).contains(&format!("{variable} is off")), "{}", said(&output));
        }
    });
}

#[test]
fn a_control_socket_that_cannot_be_made_is_one_line_that_says_what_to_do() {
    let upstream = Upstream::answering("10.1.0.1");
    let default = upstream.address.to_string();
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("file"), "").expect("the folder is writable");
    for (path, reason) in [("none/control.sock", "its folder does not exist"), ("file/control.sock", "not a directory")]
    {
        let path = folder.path().join(path).display().to_string();
        let flags = ["--listen", "127.0.0.1:0", "--default", &default, "--admin", "127.0.0.1:0", "--socket", &path];
        let tidegate = Tidegate::start_without_file(&[], &flags);
        let lines = tidegate.logged("WARN", "no control socket at");
        assert_eq!(lines.len(), 1, "{lines:?}");
        for part in [&*path, reason, "`reload`, `drain`", "--socket PATH or --socket off"] {
            assert!(lines[0].contains(part), "{part}: {}", lines[0]);
        }
        assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.1.0.1"]);
    }
}

#[test]
fn flags_that_need_another_flag_name_it() {
    // A host that runs tidegate has a file, and these flags are laid over it.
    if !Path::new("/etc/tidegate/tidegate.toml").exists() {
        flags_without_a_file_report_what_is_missing();
    }
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let admin = held.local_addr().expect("a bound socket").to_string();
    let taken = run(&["serve", "--listen", "127.0.0.1:0", "--default", "10.1.1.53", "--admin", &admin]);
    assert!(said(&taken).contains(&format!("cannot listen on {admin} for the status page")), "{}", said(&taken));
    let wrong = run(&["serve", "--aws", "10.20.1.10", "--admin", "nine"]);
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("error: --admin: http \"nine\" is no address"), "{}", said(&wrong));
}

fn flags_without_a_file_report_what_is_missing() {
    let guard = run(&["serve", "--private", "10.20.0.0/16"]);
    assert_eq!(guard.status.code(), Some(2), "{}", said(&guard));
    assert!(said(&guard).contains("there is no rule for preset:aws to guard"), "{}", said(&guard));
    assert!(said(&guard).contains("with --aws"), "{}", said(&guard));

    let bare = run(&["serve"]);
    assert_eq!(bare.status.code(), Some(2), "{}", said(&bare));
    assert!(said(&bare).contains("/etc/tidegate/tidegate.toml"), "{}", said(&bare));
    assert!(said(&bare).contains("a sidecar needs no file: tidegate serve --listen"), "{}", said(&bare));
}

#[test]
fn empty_variables_and_flags_count_as_unset() {
    namespace::inside("empty_variables_and_flags_count_as_unset", || {
        // Nothing says where queries go: as without flags, and not a server that refuses everything.
        let empty = [("TIDEGATE_AWS", ""), ("TIDEGATE_DEFAULT", ""), ("TIDEGATE_LISTEN", "127.0.0.1:0")];
        for (variables, flags) in [(&empty[..], &["serve"][..]), (&[], &["serve", "--aws", "", "--default", ""])] {
            let output = run_with(variables, flags);
            assert_eq!(output.status.code(), Some(2), "{}", said(&output));
            assert!(said(&output).contains("a sidecar needs no file"), "{}", said(&output));
        }
        // No verb fails for a variable that is there and says nothing: none of them finds a daemon here.
        let variables = [("TIDEGATE_CONFIG", ""), ("TIDEGATE_ADMIN", ""), ("TIDEGATE_SOCKET", "")];
        for verb in [&["status"][..], &["reload"], &["perimeter"], &["flush", "--all"], &["cache", "export"]] {
            let output = run_with(&variables, verb);
            assert_eq!(output.status.code(), Some(1), "{verb:?}: {}", said(&output));
            assert!(said(&output).contains("no daemon"), "{verb:?}: {}", said(&output));
        }
        let upstream = Upstream::answering("10.1.0.1");
        let default = upstream.address.to_string();
        let flags = ["--listen", "127.0.0.1:0", "--default", &default];
        let tidegate = Tidegate::start_without_file(&[("TIDEGATE_CONFIG", ""), ("TIDEGATE_PRIVATE", "")], &flags);
        assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.1.0.1"]);
    });
}
