//! `tidegate check` as a user meets it.

use std::{fs, path::Path, process::Output};

use rstest::rstest;

use crate::{BASE, plan, support::tidegate::run};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Checks a file that holds `text`.
fn check(folder: &Path, text: &str) -> Output {
    let path = folder.join("t.toml");
    fs::write(&path, text).expect("the folder is writable");
    run(&["check", &path.to_string_lossy()])
}

#[rstest]
#[case::a_problem("[server]\nlisen = []\n", 2)]
#[case::problems("[server]\nlisen = []\n[cache]\nsize = \"1\"\n", 2)]
#[case::a_warning(&format!("{BASE}[upstream.idle]\nservers = [\"10.9.9.9\"]\n"), 0)]
#[case::a_bad_zone(&format!("{BASE}[[local]]\nzone = \"a.example\"\nrecords = [\"x BAD\"]\n"), 2)]
#[case::no_toml("[server\n", 2)]
fn every_message_ends_with_a_newline(#[case] text: &str, #[case] code: i32) {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), text);
    assert_eq!(output.status.code(), Some(code), "{}", said(&output));
    let said = said(&output);
    assert!(said.ends_with('\n') && !said.ends_with("\n\n"), "{said:?}");
}

#[test]
fn without_a_rule_for_the_rest_there_is_a_note_and_no_warning() {
    let folder = tempfile::tempdir().unwrap();
    let text = BASE.replace("\".\", \"reverse:private\"", "\"vpc.example\"");
    assert_ne!(text, BASE);
    let output = check(folder.path(), &text);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert_eq!(said(&output).matches("note: no rule has \".\"").count(), 1, "{}", said(&output));
    assert!(!said(&output).contains("warning"), "{}", said(&output));
    assert!(plan(&text).warnings.is_empty(), "`serve` and `reload` log them");
    let root = format!("{text}[[local]]\nzone = \".\"\nrecords = [\"a 60 A 10.0.0.1\"]\n");
    for text in [BASE, &root] {
        assert_eq!(said(&check(folder.path(), text)), "");
    }
}

#[test]
fn a_file_that_is_not_there_ends_with_a_newline_too() {
    let output = run(&["check", "/nonexistent/t.toml"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).ends_with('\n'), "{:?}", said(&output));
}

#[test]
fn the_file_is_named_as_for_other_verbs_or_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml");
    fs::write(&path, BASE).unwrap();
    let path = path.to_string_lossy();
    for arguments in [&["check", &path][..], &["check", "--config", &path]] {
        assert_eq!(run(arguments).status.code(), Some(0), "{arguments:?}");
    }
    assert_eq!(run(&["check", &path, "--config", &path]).status.code(), Some(2), "one of them");
    let output = run(&["perimeter", "--config", "/nonexistent/t.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("/nonexistent/t.toml cannot be read"), "{}", said(&output));
    fs::write(folder.path().join("t.toml"), "[admin]\nhttp = \"\"\n").unwrap();
    let output = run(&["perimeter", "--config", &path]);
    assert!(said(&output).contains("`http` in [admin] is off"), "{}", said(&output));
}

#[rstest]
#[case::an_address(
    "[server]\nlisten = [\"192.0.2.1:53\"]",
    "listen 192.0.2.1:53: this host does not have that address"
)]
#[case::an_interface(
    "[server]\nlisten = [\"[fe80::1%none0]:53\"]",
    "listen [fe80::1%none0]:53: this host has no such interface"
)]
#[case::freebind("[server]\nlisten = [\"192.0.2.1:53\"]\nfreebind = true", "")]
#[case::ours("[server]\nlisten = [\"127.0.0.1:53\", \"0.0.0.0:5353\"]", "")]
#[case::admin("[admin]\nhttp = \"192.0.2.1:9153\"", "admin.http 192.0.2.1:9153: this host does not have that address")]
fn an_address_to_listen_on_that_the_host_lacks_is_warned_of(#[case] text: &str, #[case] expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let output = check(folder.path(), &format!("{BASE}{text}\n"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    match expected {
        "" => assert_eq!(said(&output), ""),
        _ => assert!(said(&output).contains(&format!("warning: {expected}")), "{}", said(&output)),
    }
}

#[rstest]
#[case::only_us("nameserver 127.0.0.1\n", Some("names no server but this tidegate itself (127.0.0.1)"))]
#[case::nobody("search corp.example\n", Some("names no server that could be asked"))]
#[case::the_stub("nameserver 127.0.0.53\n", Some("names no server that could be asked"))]
#[case::another("nameserver 127.0.0.1\nnameserver 10.1.1.53\n", None)]
fn system_servers_that_are_none_are_warned_of(#[case] resolv_conf: &str, #[case] expected: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("resolv.conf"), resolv_conf).unwrap();
    let text = BASE.replace("10.20.1.10", "system:resolv.conf");
    let output = check(folder.path(), &format!("[server]\nlisten = [\"127.0.0.1:53\"]\n{text}"));
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    match expected {
        Some(expected) => {
            assert!(said(&output).contains(expected) && said(&output).contains("SERVFAIL"), "{}", said(&output));
        }
        None => assert_eq!(said(&output), ""),
    }
}

#[test]
fn a_source_and_a_device_that_the_host_lacks_are_warned_of() {
    let folder = tempfile::tempdir().unwrap();
    let text = BASE.replace("servers", "source = \"192.0.2.1\"\ndevice = \"none0\"\nservers");
    let text = text.replace("10.20.1.10", "10.20.1.10\", \"fe80::1%none0");
    let output = check(folder.path(), &text.replace("source = \"192.0.2.1\"\n", ""));
    assert!(said(&output).contains("server fe80::1%none0: this host has no such interface"), "{}", said(&output));
    let output = check(folder.path(), &text.replace("\", \"fe80::1%none0", ""));
    assert!(said(&output).contains("source 192.0.2.1: this host does not have that address"), "{}", said(&output));
    assert!(said(&output).contains("device none0: this host has no such device"), "{}", said(&output));
}

/// As the README has it: whoever clones the repository may check what is in `config/`.
#[test]
fn every_shipped_file_passes() {
    let mut seen = 0;
    for entry in fs::read_dir("config").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "toml") {
            let output = run(&["check", &path.to_string_lossy()]);
            assert_eq!(output.status.code(), Some(0), "{}: {}", path.display(), said(&output));
            seen += 1;
        }
    }
    assert_eq!(seen, 5);
}

#[test]
fn errors_are_called_so_and_the_last_line_counts_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.toml").display().to_string();
    let idle = "[upstream.idle]\nservers = [\"10.9.9.9\"]\n";
    let zone = "[[local]]\nzone = \"a.example\"\nrecords = [\"x BAD\"]\n";
    for (text, label, last) in [
        ("[server]\nlisen = []\n".to_owned(), "t.toml:2:1: error: ", "1 error; it cannot be used"),
        ("[server]\nlisen = []\nworker = 1\n".to_owned(), "t.toml:3:1: error: ", "2 errors; it cannot be used"),
        (format!("{BASE}{idle}"), "t.toml:6:11: warning: ", "1 warning; it can be used"),
        (format!("{BASE}{zone}"), "error: ", "1 error; it cannot be used"),
        (format!("{BASE}{idle}{zone}"), "error: ", "1 error, 1 warning; it cannot be used"),
    ] {
        let said = said(&check(folder.path(), &text));
        assert!(said.contains(label), "{label}: {said}");
        assert_eq!(said.lines().last(), Some(&*format!("{path}: {last}")), "{said}");
    }
    assert_eq!(said(&check(folder.path(), BASE)), "");
}
