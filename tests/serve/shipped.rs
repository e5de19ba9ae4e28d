//! Every configuration that we ship is accepted.

use std::{fs, path::Path};

use crate::support::tidegate::run;

const ZONE: &str = "@ 300 SOA ns hostmaster 1 7200 900 1209600 300\n@ 300 NS ns\nns 300 A 10.1.1.2\n";

#[track_caller]
fn assert_passes(path: &Path, origin: &str) {
    let output = run(&["check", &path.to_string_lossy()]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{origin}: {said}");
}

#[test]
fn every_file_in_config_passes_the_check() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut count = 0;
    for entry in fs::read_dir(&folder).expect("config/ holds a file for each kind of site") {
        let path = entry.expect("config/ is readable").path();
        // The reference shows every key, also those that a later version brings.
        if path.extension().is_some_and(|extension| extension == "toml") && !path.ends_with("reference.toml") {
            assert_passes(&path, &path.display().to_string());
            count += 1;
        }
    }
    assert!(count > 0, "no file in {}", folder.display());
}

#[test]
fn the_reference_holds_nothing_wrong_but_what_is_not_supported_yet() {
    // Beside the zone file that it names.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let reference = folder.path().join("reference.toml");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml"), &reference).expect("it is there");
    fs::write(folder.path().join("corp.example.zone"), ZONE).expect("the folder is writable");
    let output = run(&["check", &reference.to_string_lossy()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    // The last line counts the problems, and is none.
    let problem = |line: &&str| {
        line.contains("reference.toml:") && !line.contains(": warning: ") && !line.ends_with("it can be used")
    };
    let headlines: Vec<&str> = said.lines().filter(problem).collect();
    assert!(headlines.iter().all(|line| line.contains("not supported yet")), "{said}");
    let expected = if headlines.is_empty() { 0 } else { 2 };
    assert_eq!(output.status.code(), Some(expected), "{said}");
}

#[test]
fn every_block_of_toml_in_the_readme_and_the_guide_passes_the_check() {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let guide = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/coming-from.md");
    let text = [readme, guide].map(|path| fs::read_to_string(path).expect("it is there")).concat();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("tidegate.toml");
    let blocks: Vec<&str> = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty(), "the README shows a configuration");
    for (number, block) in blocks.iter().enumerate() {
        fs::write(&path, block).expect("the folder is writable");
        assert_passes(&path, &format!("block {} of README.md and docs/coming-from.md:\n{block}", number + 1));
    }
}

#[test]
fn the_defaults_that_are_printed_are_taken_back() {
    let output = run(&["check", "--defaults"]);
    let defaults = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{defaults}");
    let table: toml::Table = defaults.parse().unwrap_or_else(|error| panic!("{error} in {defaults}"));
    let value = |section: &str, key: &str| table.get(section).and_then(|section| section.get(key)).cloned();
    assert_eq!(value("server", "udp_payload"), Some(toml::Value::Integer(1232)), "{defaults}");
    assert_eq!(value("cache", "size"), Some(toml::Value::String("128MiB".to_owned())), "{defaults}");
    assert_eq!(value("admin", "http"), Some(toml::Value::String("127.0.0.1:9153".to_owned())), "{defaults}");
}
