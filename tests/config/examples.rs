//! The files in `config/`.

use std::{fs, path::Path};

use tidegate::config::Plan;

use crate::lines;

#[test]
fn every_example_file_is_valid_and_warns_of_nothing() {
    let mut seen = 0;
    for entry in fs::read_dir("config").unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "toml") || path.ends_with("reference.toml") {
            continue;
        }
        let plan = Plan::load(&path).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(lines(&plan.warnings), [""; 0], "{}", path.display());
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn every_example_value_of_the_reference_is_valid() {
    let problems = Plan::load(Path::new("config/reference.toml")).err().map(|problems| problems.to_string());
    assert_eq!(problems, None);
}
