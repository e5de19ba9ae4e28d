//! The manual: every verb has its page, no page refers to one that is not there, and mandoc finds nothing to say.

mod support;

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use support::tidegate::run;

fn pages(folder: &Path) -> Vec<PathBuf> {
    let output = run(&["man", "--into", &folder.display().to_string()]);
    assert!(output.status.success(), "{output:?}");
    let mut pages = Vec::new();
    for section in ["man1", "man5"] {
        let files = fs::read_dir(folder.join(section)).expect("the section is there");
        pages.extend(files.map(|file| file.expect("readable").path()));
    }
    pages
}

/// "tidegate-check(1)".
fn title(page: &Path) -> String {
    let (name, section) =
        page.file_name().unwrap_or_default().to_str().and_then(|name| name.rsplit_once('.')).expect("a page");
    format!("{name}({section})")
}

#[test]
fn every_verb_has_its_page_and_references_lead_somewhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = pages(folder.path());
    let titles: BTreeSet<String> = pages.iter().map(|page| title(page)).collect();
    let help = String::from_utf8(run(&["--help"]).stdout).expect("UTF-8");
    let listed = help.split_once("Commands:\n").expect("a list of verbs").1.lines().take_while(|line| !line.is_empty());
    let verbs: Vec<&str> =
        listed.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).filter(|v| !v.is_empty()).collect();
    assert!(verbs.len() > 10, "{help}");
    for verb in verbs {
        assert!(titles.contains(&format!("tidegate-{verb}(1)")), "{verb} in {titles:?}");
        let page = fs::read_to_string(folder.path().join(format!("man1/tidegate-{verb}.1"))).expect("readable");
        for part in [".SH EXIT STATUS", ".SH EXAMPLES", ".SH OPTIONS"] {
            assert!(page.contains(part), "{part} in the page of {verb}:\n{page}");
        }
    }
    for page in &pages {
        let text = fs::read_to_string(page).expect("readable");
        for line in text.lines().filter_map(|line| line.strip_prefix(".BR ")) {
            let reference = line.trim_end_matches([' ', ',']).replace("\\-", "-").replace(' ', "");
            assert!(titles.contains(&reference), "{} refers to {reference}", page.display());
        }
    }
}

#[test]
fn the_program_and_the_file_are_described() {
    let program = String::from_utf8(run(&["man"]).stdout).expect("UTF-8");
    for part in
        ["EXIT STATUS", "SIGNALS", "SIGHUP", "ENVIRONMENT", "FILES", "/etc/tidegate/tidegate.toml", "control.sock"]
    {
        assert!(program.contains(part), "{part} in\n{program}");
    }
    let file = String::from_utf8(run(&["man", "tidegate.toml"]).stdout).expect("UTF-8").replace("\\-", "-");
    let reference = include_str!("../config/reference.toml");
    let keys = reference
        .lines()
        .filter(|line| !line.starts_with(['#', '[', ' ', ']']))
        .filter_map(|line| line.split_once('='));
    for (key, _) in keys {
        assert!(file.contains(key.trim()), "{key} in\n{file}");
    }
    assert_eq!(run(&["man", "check"]).status.code(), Some(0));
    assert_eq!(run(&["man", "nothing"]).status.code(), Some(2));
    assert_eq!(run(&["man", "--into", "/dev/null/man"]).status.code(), Some(1));
}

#[test]
fn mandoc_finds_nothing_to_say() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pages = pages(folder.path());
    let output = Command::new("mandoc").args(["-T", "lint"]).args(&pages).output().expect("mandoc is installed");
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{said}");
}
