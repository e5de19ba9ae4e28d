//! What docs/, deploy/ and the README tell: configurations that pass `tidegate check`, verbs and options that exist, links
//! that lead somewhere, a section of the runbook for each alert.
//!
//! `tests/deploy/run` holds the files of deploy/ against the programs that they are for.

mod support;

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

use support::tidegate::run;

/// Pages whose TOML is another format, held by a test of its own.
const NOT_CONFIGURATIONS: [&str; 1] = ["docs/expectations.md"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The README and all Markdown below docs/ and deploy/, with their paths from the root.
fn pages() -> Vec<(PathBuf, String)> {
    let mut found = vec![root().join("README.md")];
    let mut folders = vec![root().join("docs"), root().join("deploy")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of the project") {
            let path = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|kind| kind == "md") {
                found.push(path);
            }
        }
    }
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).expect("it is UTF-8");
        (path.strip_prefix(root()).expect("below the root").to_owned(), text)
    };
    found.into_iter().map(read).collect()
}

/// The fenced blocks of a language, without the indentation of a list.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().strip_prefix("```") == Some(language) {
            let indent = line.len() - line.trim_start().len();
            let inside = lines.by_ref().take_while(|line| line.trim_start() != "```");
            found.push(inside.map(|line| line.get(indent..).unwrap_or("").to_owned() + "\n").collect());
        }
    }
    found
}

/// The `#anchor` that a heading gets.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |letter: &char| letter.is_alphanumeric() || matches!(letter, ' ' | '-' | '_');
    let anchor = |heading: &str| heading.to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
    headings.map(anchor).collect()
}

#[test]
fn every_configuration_in_the_docs_passes_the_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("tidegate.toml");
    let mut count = 0;
    for (page, text) in pages() {
        if NOT_CONFIGURATIONS.iter().any(|other| page == Path::new(other)) {
            continue;
        }
        for block in blocks(&text, "toml") {
            fs::write(&file, &block).expect("the folder is writable");
            let output = run(&["check", &file.to_string_lossy()]);
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(0), "{}:\n{block}\n{said}", page.display());
            count += 1;
        }
    }
    assert!(count >= 3, "only {count} blocks were found");
}

#[test]
fn every_command_in_the_docs_exists_and_parses() {
    let mut helps: HashMap<String, String> = HashMap::new();
    let mut help = |verb: &str| {
        let ask = || {
            let output = run(&[verb, "--help"]);
            assert_eq!(output.status.code(), Some(0), "there is no verb {verb}");
            String::from_utf8(output.stdout).expect("UTF-8")
        };
        helps.entry(verb.to_owned()).or_insert_with(ask).clone()
    };
    let (mut count, mut parsed_count) = (0, 0);
    for (page, text) in pages() {
        for words in commands(&shell(&text)) {
            // What the shell changes is not known here.
            if words.iter().all(|word| !word.contains(['$', '"', '\'', '\\', '`'])) {
                let line = [&["tidegate".to_owned()], &words[..]].concat();
                let parsed = tidegate::cli::command().try_get_matches_from(&line);
                let problem = parsed.err().filter(|error| error.use_stderr()).map(|error| error.to_string());
                assert_eq!(problem, None, "{}: {}", page.display(), line.join(" "));
                parsed_count += 1;
            }
        }
        for words in commands(&[shell(&text), inline(&text)].concat()) {
            let said = help(&words[0]);
            for option in words.iter().filter(|word| word.starts_with("--")) {
                let option = option.split('=').next().unwrap_or(option);
                assert!(
                    option == "--help" || said.contains(option),
                    "{}: tidegate {} has no {option}",
                    page.display(),
                    words[0]
                );
            }
            count += 1;
        }
    }
    assert!(count >= 30 && parsed_count >= 20, "only {count} commands were found, and {parsed_count} whole ones");
}

/// Blocks of commands.
fn shell(text: &str) -> Vec<String> {
    ["sh", "bash"].iter().flat_map(|language| blocks(text, language)).collect()
}

/// Code within sentences, where a command may stand for several.
fn inline(text: &str) -> Vec<String> {
    let outside_blocks: String = text.split("```").step_by(2).collect();
    outside_blocks.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// The words behind each `tidegate VERB` in code, up to the end of the command.
fn commands(code: &[String]) -> Vec<Vec<String>> {
    let ends = |word: &str| matches!(word, "|" | "&&" | "||" | "&" | ";" | ">" | "#") || word.starts_with(['>', '<']);
    let mut found = Vec::new();
    for line in code.iter().flat_map(|code| code.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        for at in (0..words.len()).filter(|&at| words[at] == "tidegate" || words[at].ends_with("/bin/tidegate")) {
            // What is not a verb is a file's name, a package, a unit, a user.
            let is_verb = words.get(at + 1).is_some_and(|word| word.chars().all(|letter| letter.is_ascii_lowercase()));
            let leads = at == 0 || ends(words[at - 1]) || words[at - 1] == "sudo";
            if is_verb && leads {
                let rest = words[at + 1..].iter().take_while(|word| !ends(word));
                found.push(rest.map(|word| word.trim_matches(['[', ']', ',', ';']).to_owned()).collect());
            }
        }
    }
    found
}

#[test]
fn every_link_between_the_pages_leads_somewhere() {
    let mut broken = Vec::new();
    for (page, text) in pages() {
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let there = if file.is_empty() {
                root().join(&page)
            } else {
                root().join(&page).parent().expect("a page is in a folder").join(file)
            };
            let is_there = there.exists()
                && (anchor.is_empty() || anchors(&fs::read_to_string(&there).unwrap_or_default()).contains(anchor));
            if !is_there {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_alert_has_its_section_in_the_runbook_and_no_section_is_left_over() {
    let rules = fs::read_to_string(root().join("deploy/prometheus/tidegate.rules.yml")).expect("the rules");
    let runbook = fs::read_to_string(root().join("docs/runbook.md")).expect("the runbook");
    let after = |key: &str| -> Vec<String> {
        rules.lines().filter_map(|line| line.trim().strip_prefix(key)).map(|rest| rest.trim().to_owned()).collect()
    };
    let alerts = after("- alert:");
    assert!(alerts.len() >= 15, "{alerts:?}");
    let sections: Vec<String> =
        runbook.lines().filter_map(|line| line.strip_prefix("## ")).map(str::to_owned).collect();
    assert_eq!(alerts, sections, "alerts, and sections of docs/runbook.md");
    let expected: Vec<String> =
        alerts.iter().map(|alert| format!("docs/runbook.md#{}", alert.to_lowercase())).collect();
    assert_eq!(after("runbook_url:"), expected);
    let tests = fs::read_to_string(root().join("deploy/prometheus/tests.yml")).expect("the rules' tests");
    for url in &expected {
        assert!(tests.contains(url), "no test of deploy/prometheus/tests.yml makes the alert of {url} fire");
    }
}
