//! Files that include others.

use std::{fs, path::Path};

use tidegate::config::{Plan, Problems, ZoneData};

use crate::{BASE, lines};

fn site(main: &str, parts: &[(&str, &str)]) -> (tempfile::TempDir, Result<Plan, Problems>) {
    let directory = tempfile::tempdir().expect("a directory");
    fs::create_dir(directory.path().join("conf.d")).expect("a directory");
    fs::write(directory.path().join("t.toml"), main).expect("a file");
    for (name, text) in parts {
        fs::write(directory.path().join("conf.d").join(name), text).expect("a file");
    }
    let plan = Plan::load(&directory.path().join("t.toml"));
    (directory, plan)
}

/// Messages without the temporary directory.
fn told(directory: &tempfile::TempDir, plan: Result<Plan, Problems>) -> Vec<String> {
    let Err(problems) = plan else { return Vec::new() };
    let root = format!("{}/", directory.path().display());
    problems.lines().map(|line| line.replace(&root, "")).collect()
}

const INCLUDE: &str = "include = [\"conf.d/*.toml\"]\n";

#[test]
fn files_are_read_in_name_order_and_paths_start_beside_the_file_that_names_them() {
    let local = |zone: &str| format!("[[local]]\nzone = \"{zone}\"\nfile = \"{zone}.zone\"\n");
    let parts = [("20-b.toml", &*local("b.example")), ("10-a.toml", &*local("a.example")), ("x.bak", "nonsense")];
    let (directory, plan) = site(&format!("{INCLUDE}{BASE}"), &parts);
    let plan = plan.unwrap();
    let zones: Vec<String> = plan.live.local.iter().map(|local| local.zone.to_string()).collect();
    assert_eq!(zones, ["a.example.", "b.example."]);
    let file = directory.path().join("conf.d/a.example.zone");
    assert_eq!(plan.live.local[0].data, ZoneData::File(file));
}

#[test]
fn an_empty_directory_or_none_is_fine() {
    let (_directory, plan) = site(&format!("{INCLUDE}{BASE}"), &[]);
    plan.unwrap();
    let (_directory, plan) = site(&format!("include = [\"none.d/*.toml\"]\n{BASE}"), &[]);
    plan.unwrap();
}

#[test]
fn the_same_table_or_zone_twice_names_both_files() {
    let parts = [
        ("a.toml", "[cache]\nsize = \"1GiB\"\n[upstream.vpc]\nservers = [\"10.0.0.1\"]\n"),
        ("b.toml", "[cache]\nsize = \"2GiB\"\n[[forward]]\nzones = [\".\"]\nto = \"vpc\"\n"),
    ];
    let (directory, plan) = site(&format!("{INCLUDE}{BASE}"), &parts);
    assert_eq!(
        told(&directory, plan),
        [
            "conf.d/a.toml:3:11: [upstream.vpc] stands at t.toml:2:11 already",
            "conf.d/b.toml:1:1: [cache] stands at conf.d/a.toml:1:1 already",
            "conf.d/b.toml:4:10: zone \".\" belongs to rule \".\" at t.toml:5:10 already",
        ]
    );
}

#[test]
fn an_included_file_includes_no_others_and_its_mistakes_are_its_own() {
    let parts = [("a.toml", "include = [\"x.toml\"]\n[server]\nlisten = [\"x\"]\n")];
    let (directory, plan) = site(&format!("{INCLUDE}{BASE}"), &parts);
    assert_eq!(
        told(&directory, plan),
        [
            "conf.d/a.toml:1:11: an included file cannot include others",
            "conf.d/a.toml:3:11: listen \"x\" is no address to listen on: it is not an IPv4 or IPv6 address",
        ]
    );
}

#[test]
fn a_file_that_is_not_there_says_what_to_do() {
    let Err(problems) = Plan::load(Path::new("/nonexistent/t.toml")) else { panic!("it is not there") };
    assert_eq!(lines(&problems), ["/nonexistent/t.toml: cannot be read: no such file or directory"]);
    assert!(problems.to_string().contains("--config"), "{problems}");
}

#[test]
fn every_error_in_an_included_file_names_that_file_and_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let main = folder.path().join("t.toml");
    fs::write(&main, format!("include = [\"conf.d/*.toml\"]\n{BASE}")).unwrap();
    fs::create_dir(folder.path().join("conf.d")).unwrap();
    let included = folder.path().join("conf.d/a.toml");
    for (octets, place, message) in [
        (&b"\n[cache]\nsise = \"1\"\n"[..], ":3:1: ", "did you mean \"size\"?"),
        (b"[cache]\nsize = 1\n", ":2:8: ", "must be a size in quotes"),
        (b"[cache\n", ":1:7: ", "not TOML"),
        (b"\n\n[log]\nlevel = \"\xff\"\n", ":4:10: ", "this is not UTF-8"),
        (b"[[forward]]\nzones = [\"a.example\"]\nto = \"nope\"\n", ":3:6: ", "no [upstream.nope]"),
        (b"\n[[local]]\nzone = \"b.example\"\nrecords = [\n  \"x 300 BAD 1\"]\n", ":5: ", "is not a record type"),
        (b"\n[[local]]\nzone = \"b.example\"\nfile = \"none.zone\"\n", ":3", "cannot be read"),
    ] {
        fs::write(&included, octets).unwrap();
        let output = crate::support::tidegate::run(&["check", &main.to_string_lossy()]);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{said}");
        let named = format!("{}{place}", included.display());
        assert!(said.contains(&named) && said.contains(message), "{named} {message}: {said}");
    }
}
