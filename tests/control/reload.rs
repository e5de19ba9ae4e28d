//! `reload`: what it says of the new configuration.

use std::{
    fs::{self, File},
    os::unix::fs::MetadataExt as _,
    process::Command,
};

use serde_json::Value;

use crate::{
    Place, ask,
    support::{
        config::{Config, ONE_PATIENT_TRY},
        query::Query,
        tidegate::{Tidegate, run},
        upstream::Upstream,
    },
};

#[test]
fn a_reload_says_what_changed_or_why_it_was_refused() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let base = || {
        let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY);
        config.forward("all", &[".", "reverse:private"], "vpc", "")
    };
    let tidegate = Tidegate::start(&base());
    let file = tidegate.folder().join("tidegate.toml");
    assert_eq!(place.says(&["reload"]), (Some(0), "nothing changed\n".to_owned()));

    fs::write(
        &file,
        base().forward("aws", &["preset:aws"], "vpc", "private = [\"10.0.0.0/8\"]\non_public = \"refuse\"").text(),
    )
    .unwrap();
    assert_eq!(place.says(&["reload"]), (Some(0), "rule aws is new\n".to_owned()));

    fs::write(&file, "[server]\nlisten = [\"nonsense\"]\nlissen = 1\n").unwrap();
    let (code, text) = place.says(&["reload"]);
    assert_eq!(code, Some(2), "{text}");
    assert!(text.contains("tidegate.toml:2:") && text.contains("tidegate.toml:3:"), "every problem: {text}");
    assert_eq!(ask(&tidegate, 1), ["10.0.0.1"], "the old one is in force");
    assert_eq!(tidegate.metric("tidegate_config_last_reload_success", &[]), 0.0);

    let json = place.order(&["reload", "--json"]);
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["done"], false);
    assert!(json["problems"].as_array().unwrap().len() >= 2, "{json}");
    assert!(text.ends_with("the old one stays in force\n"), "{text}");
}

#[test]
fn a_reload_names_every_change_once_and_nothing_else() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let zone = "[[local]]\nzone = \"corp.example\"\nfile = \"corp.zone\"\n[local_hosts]\nfile = \"hosts\"\n";
    let base = || {
        let config = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY);
        config.forward("all", &[".", "reverse:private"], "vpc", "").raw(zone)
    };
    // Beside the file of the daemon, which has a folder of its own: the names are made absolute.
    let text = |config: &Config| {
        let absolute = |name: &str| format!("file = \"{}\"", place.0.path().join(name).display());
        config
            .text()
            .replace("file = \"corp.zone\"", &absolute("corp.zone"))
            .replace("file = \"hosts\"", &absolute("hosts"))
    };
    let put = |name: &str, text: &str| fs::write(place.0.path().join(name), text).unwrap();
    let corp = |record: &str| {
        put("corp.zone", &format!("@ 300 SOA ns.example. ops.example. 1 2 3 4 5\n@ NS ns.example.\n{record}\n"))
    };
    corp("app 300 A 10.1.2.3");
    put("hosts", "10.1.2.4 printer.example\n");
    let bare = place.config().upstream("vpc", &[&upstream], ONE_PATIENT_TRY);
    let tidegate = Tidegate::start(&bare.forward("all", &[".", "reverse:private"], "vpc", ""));
    let file = tidegate.folder().join("tidegate.toml");
    let reload = |text: String| {
        fs::write(&file, text).unwrap();
        let (code, said) = place.says(&["reload"]);
        assert_eq!(code, Some(0), "{said}");
        said.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(reload(text(&base())), ["local zone corp.example. is new", "local_hosts.file changed"]);
    // Only the content counts, whether the daemon or the order names the file.
    corp("app 300 A 10.9.9.9");
    let said = reload(text(&base()));
    assert!(said == ["local zone corp.example. changed"] || said == ["nothing changed"], "{said:?}");
    assert_eq!(tidegate.client().ask(&Query::a("app.corp.example.")).address_texts(), ["10.9.9.9"]);

    // Another group in front moves all others, and changes none of them.
    let front = place.config().upstream("front", &[&upstream], "").upstream("vpc", &[&upstream], ONE_PATIENT_TRY);
    let front = front.forward("all", &[".", "reverse:private"], "vpc", "").raw(zone);
    assert_eq!(reload(text(&front)).iter().filter(|line| !line.contains("front")).count(), 0);
    let other = front.section("server", "deadline = \"3s\"\nworkers = 1").section("log", "level = \"debug\"");
    let said = reload(text(&other));
    let expected = ["server.workers: this change needs a restart", "server.deadline changed", "log.level changed"];
    assert_eq!(said.iter().filter(|line| !line.contains("front")).collect::<Vec<_>>(), expected);

    // What waits for a restart is a change.
    let restart = other.clone().section("limits", "pipeline = 7");
    let said = reload(text(&restart));
    assert!(
        said.iter().any(|line| line.contains("limits.") && line.ends_with("this change needs a restart")),
        "{said:?}"
    );
    assert!(!said.iter().any(|line| line.contains("nothing changed")), "{said:?}");

    // What is wrong with a zone file is a reason to refuse, too.
    corp("app 300 A nonsense");
    let (code, said) = place.says(&["reload"]);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("corp.zone:3"), "{said}");
    assert_eq!(tidegate.client().ask(&Query::a("app.corp.example.")).address_texts(), ["10.9.9.9"]);
}

#[test]
fn the_daemon_of_a_broken_file_is_found_and_tells_what_is_wrong() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let file = tidegate.folder().join("tidegate.toml");
    for mistake in ["[upstream.vpc2]\nservers = []", "[cache]\nsize = 12 12\n[special]\nenabled = true"] {
        fs::write(&file, config.text() + mistake).unwrap();
        let output = run(&["reload", "--config", &file.display().to_string()]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{mistake}: {text}");
        assert!(text.contains("tidegate.toml:") && text.contains("stays in force"), "{mistake}: {text}");
        assert_eq!(tidegate.metric("tidegate_config_last_reload_success", &[]), 0.0, "the daemon was asked");
        assert!(tidegate.reload(&config));
    }
    // The variable is for `serve`; an explicit socket takes precedence.
    let socket = place.socket().display().to_string();
    let arguments =
        [&["TIDEGATE_CONFIG=/nonexistent.toml", env!("CARGO_BIN_EXE_tidegate")][..], &["reload", "--socket", &socket]];
    let output = Command::new("env").args(arguments.concat()).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");

    for (text, why) in [("[admin]\nsocket = \"\"\n", "is off"), ("", "cannot be read")] {
        let path = place.0.path().join("other.toml");
        if text.is_empty() {
            fs::remove_file(&path).unwrap()
        } else {
            fs::write(&path, text).unwrap()
        }
        let output = run(&["drain", "10.0.0.1", "--config", &path.display().to_string()]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(why), "{output:?}");
    }
}

/// As `systemctl reload` runs it, with both processes' lines in one journal.
#[test]
fn a_refused_reload_stands_in_the_journal_once() {
    let (place, upstream) = (Place::new(), Upstream::answering("10.0.0.1"));
    let config = place.config().upstream("vpc", &[&upstream], "").forward("all", &["."], "vpc", "");
    let tidegate = Tidegate::start(&config);
    fs::write(tidegate.folder().join("tidegate.toml"), config.text() + "lissen = 1\n").unwrap();
    let journal = File::create(place.0.path().join("journal")).unwrap();
    let stream = journal.metadata().map(|file| format!("{}:{}", file.dev(), file.ino())).unwrap();
    let reload = |stream: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
        command.args(["reload", "--socket"]).arg(place.socket()).env("JOURNAL_STREAM", stream);
        assert_eq!(command.stderr(journal.try_clone().unwrap()).status().unwrap().code(), Some(2));
        fs::read_to_string(place.0.path().join("journal")).unwrap()
    };
    assert_eq!(reload(&stream), "");
    tidegate.logged_once("ERROR", "lissen");
    assert!(reload("1:2").contains("lissen"), "standard error is not the journal");
}
