//! `tidegate test`: the shipped expectations hold, and failures are reported.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::{fs, path::Path, process::Output};

use serde_json::Value;
use support::{
    config::{Config, ONE_PATIENT_TRY},
    tidegate::{Tidegate, run, run_with},
    upstream::Upstream,
};

/// Exit code, standard output, standard error.
fn says(words: &[&str]) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = run(words);
    (status.code(), String::from_utf8(stdout).unwrap(), String::from_utf8(stderr).unwrap())
}

/// A file in a folder, as text for the command line.
fn file(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, text).unwrap();
    path.display().to_string()
}

const CONFIG: &str = "[server]\nlisten = [\"127.0.0.1:0\"]\n[upstream.vpc]\nservers = [\"192.0.2.1\"]\n\
                      [upstream.lab]\nservers = [\"192.0.2.2\"]\n\
                      [[forward]]\nname = \"aws\"\nzones = [\"amazonaws.com\"]\nto = \"vpc\"\nprivate = [\"10.0.0.0/8\"]\n\
                      on_public = \"strip\"\n\
                      [[forward]]\nname = \"lab\"\nzones = [\"example\"]\nclients = [\"10.1.0.0/16\"]\nto = \"lab\"\n\
                      [[local]]\nzone = \"edge.example\"\nrecords = [\"@ A 10.1.1.1\", \"@ A 10.1.1.2\"]\n";

#[test]
fn the_shipped_expectations_hold() {
    for entry in fs::read_dir("config/expectations").unwrap() {
        let path = entry.unwrap().path().display().to_string();
        let (code, out, err) = says(&["test", &path]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
        assert!(out.starts_with("all 9 expectations hold"), "{out}");
    }
}

#[test]
fn every_case_of_the_documentation_holds() {
    let page = fs::read_to_string("docs/expectations.md").unwrap();
    let blocks: Vec<&str> = page.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap()).collect();
    assert_eq!(blocks.len(), 4);
    let folder = tempfile::tempdir().unwrap();
    for (at, block) in blocks.iter().enumerate() {
        let name = file(folder.path(), &format!("{at}.toml"), block);
        let (code, out, err) = says(&["test", &name, "--config", "config/site.toml"]);
        assert_eq!((code, err.as_str()), (Some(0), ""), "{block}\n{out}");
    }
}

#[test]
fn the_variable_names_the_configuration_where_neither_flag_nor_file_does() {
    let folder = tempfile::tempdir().unwrap();
    let config = file(folder.path(), "t.toml", CONFIG);
    let other = file(folder.path(), "other.toml", "[[local]]\nzone = \"other.example\"\nrecords = []\n");
    let case = "[[case]]\nname = \"edge.example\"\nzone = \"edge.example\"\n";
    let cases = file(folder.path(), "cases.toml", case);
    let code = |config: &str, words: &[&str]| run_with(&[("TIDEGATE_CONFIG", config)], words).status.code();
    assert_eq!(code(&config, &["test", &cases]), Some(0));
    assert_eq!(code(&other, &["test", &cases]), Some(1));
    assert_eq!(code(&other, &["test", &cases, "--config", &config]), Some(0));
    let named = file(folder.path(), "named.toml", &format!("config = \"t.toml\"\n{case}"));
    assert_eq!(code(&other, &["test", &named]), Some(0));
}

#[test]
fn a_failed_expectation_is_reported_with_its_place_and_the_result() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), "site.toml", CONFIG);
    let cases = "config = \"site.toml\"\n\
                 [[case]]\nname = \"a.amazonaws.com\"\nrule = \"aws\"\n\
                 [[case]]\nname = \"a.amazonaws.com\"\nrule = \"lab\"\ngroup = \"lab\"\nlocal = true\n\
                 [[case]]\nname = \"a.amazonaws.com\"\naddress = [\"52.1.2.3\"]\nguard = \"refuse\"\nrcode = \"SERVFAIL\"\n\
                 [[case]]\nname = \"www.example\"\nclient = \"10.1.1.1\"\nview = \"\"\n\
                 [[case]]\nname = \"edge.example\"\nlocal = false\nrecords = [\"10.1.1.1\"]\nede = 3\n\
                 [[case]]\nname = \"a.amazonaws.com\"\nrcode = \"NOERROR\"\n\
                 [[case]]\nname = \"www.example\"\nzone = \"edge.example\"\nrule = \"lab\"\n";
    let name = file(folder.path(), "cases.toml", cases);
    let junit = folder.path().join("results.xml").display().to_string();
    let (code, out, err) = says(&["test", &name, "--junit", &junit]);
    assert_eq!((code, err.as_str()), (Some(1), ""), "{out}");
    let told = out.replace(&name, "cases.toml");
    for lines in [
        "cases.toml:5: a.amazonaws.com. A from 127.0.0.1\n  rule is \"aws\", and should be \"lab\"\n  group is \"vpc\", and should \
         be \"lab\"\n  it is not answered here, and should be\n  what happens: whatever upstream vpc answers, judged by rule aws\n",
        "cases.toml:10: a.amazonaws.com. A from 127.0.0.1\n  the guard says strip, and should say refuse\n  the response code is \
         NOERROR, and should be SERVFAIL\n",
        "cases.toml:15: www.example. A from 10.1.1.1\n  view is \"lab\", and should be none\n",
        "cases.toml:19: edge.example. A from 127.0.0.1\n  it is answered here, in edge.example, and should not be\n  the extended \
         error is none, and should be 3\n  the records are 10.1.1.1, 10.1.1.2, and should be 10.1.1.1\n",
        "cases.toml:24: a.amazonaws.com. A from 127.0.0.1\n  only an upstream can tell the answer; say what it answers",
        "cases.toml:27: www.example. A from 127.0.0.1\n  rule is none, and should be \"lab\"\n  zone is none, and should be \
         \"edge.example\"\n  what happens: REFUSED: Not Authoritative, no rule\n",
        "\n6 of 7 expectations do not hold\n",
    ] {
        assert!(told.contains(lines), "{lines}\n---\n{told}");
    }
    assert!(!told.contains("cases.toml:2:"), "{told}");

    let xml = fs::read_to_string(&junit).unwrap().replace(&name, "cases.toml");
    assert!(
        xml.contains("<testsuite name=\"tidegate\" tests=\"7\" failures=\"6\" errors=\"0\" skipped=\"0\">"),
        "{xml}"
    );
    let passed = "<testcase classname=\"cases.toml\" name=\"a.amazonaws.com. A from 127.0.0.1\" file=\"cases.toml\" line=\"2\"/>";
    assert!(xml.contains(passed), "{xml}");
    assert!(xml.contains("<failure message=\"view is &quot;lab&quot;, and should be none\">"), "{xml}");

    let (code, out, _) = says(&["test", &name, "--json"]);
    let results: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &results["passed"], &results["failed"]), (Some(1), &1.into(), &6.into()));
    assert_eq!(results["cases"][3]["failures"][0], "view is \"lab\", and should be none");
}

#[test]
fn a_file_that_cannot_be_used_is_told_whole_and_ends_with_2() {
    let folder = tempfile::tempdir().unwrap();
    let good = file(folder.path(), "site.toml", CONFIG);
    let name = file(folder.path(), "cases.toml", "[[case]]\nnam = \"a\"\n[[case]]\nname = \"b\"\nrcode = \"YES\"\n");
    let (code, out, err) = says(&["test", &name, "--config", &good]);
    assert_eq!((code, out.as_str()), (Some(2), ""), "{err}");
    for line in [
        "cases.toml:1:1: error: this case has no name",
        "cases.toml:2:1: error: ",
        "cases.toml:5:9: error: \"YES\" is no response code",
    ] {
        assert!(err.contains(line), "{line}: {err}");
    }
    let (code, _, err) = says(&["test", "/nonexistent.toml"]);
    assert!(code == Some(2) && err.contains("/nonexistent.toml: cannot be read"), "{err}");
    let cases = file(folder.path(), "good.toml", "[[case]]\nname = \"b\"\nrcode = \"REFUSED\"\n");
    let bad = file(folder.path(), "bad.toml", "[server]\nlisten = 5\n");
    let (code, _, err) = says(&["test", &cases, "--config", &bad]);
    assert!(code == Some(2) && err.contains("bad.toml:2:10"), "{err}");
}

#[test]
fn the_running_daemon_is_held_against_them_and_asked_as_a_client_asks() {
    let folder = tempfile::tempdir().unwrap();
    let (vpc, rest) = (Upstream::answering("52.1.2.3"), Upstream::answering("192.0.2.1"));
    let socket = folder.path().join("control.sock");
    let config = Config::without_admin()
        .section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = {socket:?}"))
        .upstream("vpc", &[&vpc], ONE_PATIENT_TRY)
        .upstream("site", &[&rest], ONE_PATIENT_TRY)
        .forward("aws", &["amazonaws.com"], "vpc", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"")
        .forward("rest", &["."], "site", "");
    let tidegate = Tidegate::start(&config);
    let cases = "[[case]]\nname = \"a.amazonaws.com\"\nrule = \"aws\"\nrcode = \"SERVFAIL\"\nede = 15\n\
                 [[case]]\nname = \"www.example\"\nrcode = \"NOERROR\"\nrecords = [\"192.0.2.1\"]\n\
                 [[case]]\nname = \"www.example\"\ntransport = \"tcp\"\nrecords = [\"192.0.2.1\"]\n\
                 [[case]]\nname = \"a.amazonaws.com\"\naddress = [\"10.1.1.1\"]\nguard = \"pass\"\nrcode = \"NOERROR\"\n\
                 [[case]]\nname = \"www.example\"\nclient = \"192.0.2.77\"\nrcode = \"REFUSED\"\nede = 18\n";
    let name = file(folder.path(), "cases.toml", cases);
    let socket = socket.display().to_string();
    let (code, out, err) = says(&["test", &name, "--live", "--socket", &socket]);
    assert_eq!((code, out.as_str(), err.as_str()), (Some(0), "all 5 expectations hold\n", ""));
    assert!(vpc.count("a.amazonaws.com.") >= 1, "the daemon asked");

    let wrong =
        file(folder.path(), "wrong.toml", "[[case]]\nname = \"www.example\"\nrecords = [\"192.0.2.2\"]\nede = 15\n");
    let admin = format!("http://{}", tidegate.admin_address());
    let server = tidegate.address().to_string();
    let (code, out, _) = says(&["test", &wrong, "--live", "--admin", &admin, "--server", &server]);
    assert_eq!(code, Some(1), "{out}");
    for line in ["the records are 192.0.2.1, and should be 192.0.2.2", "the extended error is none, and should be 15"] {
        assert!(out.contains(line), "{out}");
    }
    let (code, _, err) = says(&["test", &wrong, "--live", "--admin", "http://127.0.0.1:1"]);
    assert!(code == Some(1) && err.contains("no daemon answers"), "{err}");
}
