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
fn the_reference_passes_the_check() {
    // Beside the zone file that it names.
    let folder = tempfile::tempdir().expect("a temporary folder");
    let reference = folder.path().join("reference.toml");
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.toml"), &reference).expect("it is there");
    fs::write(folder.path().join("corp.example.zone"), ZONE).expect("the folder is writable");
    let output = run(&["check", &reference.to_string_lossy()]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
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
