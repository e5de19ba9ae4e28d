//! Cookie secrets, and the answer in class CH.

use std::fs;

use tidegate::config::Plan;

use crate::{BASE, lines, plan, problems};

#[test]
fn cookie_secrets_are_read_from_their_files_and_never_shown() {
    let directory = tempfile::tempdir().unwrap();
    let (new, old) = ("445536bcd2513298075a5d379663c962", "DD3BDF9344B678B185A6F5CB60FCA715");
    for (file, text) in [
        ("new", format!("{new}\n")),
        ("old", format!(" {old}")),
        ("short", new[1..].to_owned()),
        ("odd", new.replace('b', "x")),
        ("again", new.to_uppercase()),
    ] {
        fs::write(directory.path().join(file), text).unwrap();
    }
    let load = |list: &str| {
        let path = directory.path().join("t.toml");
        fs::write(&path, format!("{BASE}[server]\ncookie_secrets = {list}\n")).unwrap();
        Plan::load(&path)
    };

    let Ok(plan) = load("[\"new\", \"old\"]") else { panic!("both are secrets") };
    let secrets: Vec<_> = plan.live.cookie_secrets.iter().map(|secret| secret.secret.clone()).collect();
    assert_eq!(secrets, [new.parse().unwrap(), old.parse().unwrap()]);
    assert_eq!(plan.live.cookie_secrets[0].path, directory.path().join("new"));
    let shown = format!("{plan:?}").to_lowercase();
    assert!(shown.contains("cookie") && !shown.contains(&new[..8]) && !shown.contains("dd3b"), "{shown}");

    for (list, expected) in [
        (
            "[\"short\"]",
            "\"short\" holds no cookie secret: it has 31 characters, and a secret is 32 hexadecimal digits",
        ),
        ("[\"odd\"]", "\"odd\" holds no cookie secret: character 7 is no hexadecimal digit"),
        ("[\"none\"]", "cookie secret \"none\" cannot be read: no such file or directory"),
        ("[\"new\", \"again\"]", "cookie secret \"again\" stands there twice"),
        ("[\"a\", \"b\", \"c\", \"d\", \"e\"]", "cookie_secrets names 5 files, and takes 4 at most"),
    ] {
        let Err(problems) = load(list) else { panic!("{list} is wrong") };
        let lines = lines(&problems);
        assert!(lines[0].ends_with(&format!(": {expected}")), "{list}: {lines:?}");
        assert!(!lines.concat().contains(&new[1..6]), "{lines:?}");
    }
}

#[test]
fn chaos_is_a_text_that_fits_a_record() {
    let with = |length: usize| format!("{BASE}[server]\nchaos = \"{}\"\n", "é".repeat(length));
    assert_eq!(plan(&with(0)).live.chaos, None);
    assert_eq!(plan(&with(127)).live.chaos, Some("é".repeat(127)));
    let found = problems(&with(128));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].ends_with(": chaos has 256 octets, and a TXT record takes 255"), "{found:?}");
}
