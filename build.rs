//! Tells the program which commit and which compiler it was built with, and which features.
//!
//! The commit comes from `TIDEGATE_REVISION` (for packagers), from git in a clone, or from what `cargo package` leaves in
//! a crate. Where none of them knows it, the program says why. Sources that differ from the commit are marked.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// What the program is made from: a change in one of these is a change of the program.
const SOURCES: [&str; 5] = ["build.rs", "Cargo.toml", "Cargo.lock", "src", "config"];

fn main() {
    println!("cargo:rerun-if-env-changed=TIDEGATE_REVISION");
    for source in SOURCES {
        println!("cargo:rerun-if-changed={source}");
    }
    let root = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default());
    let (revision, why) = match revision(&root) {
        Ok(revision) => (revision, String::new()),
        Err(why) => ("unknown".to_owned(), why),
    };
    println!("cargo:rustc-env=TIDEGATE_REVISION={revision}");
    println!("cargo:rustc-env=TIDEGATE_REVISION_UNKNOWN={why}");
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let rustc = said(Command::new(rustc).arg("--version")).unwrap_or_default();
    println!("cargo:rustc-env=TIDEGATE_RUSTC={}", rustc.split(' ').nth(1).unwrap_or("unknown"));
    println!("cargo:rustc-env=TIDEGATE_DATE={}", date(&root).unwrap_or_else(|_| "2026-11-01".to_owned()));
    let features = env::vars().filter_map(|(key, _)| key.strip_prefix("CARGO_FEATURE_").map(str::to_lowercase));
    println!("cargo:rustc-env=TIDEGATE_FEATURES={}", features.collect::<Vec<_>>().join(","));
}

/// The commit, or why it is not known.
fn revision(root: &Path) -> Result<String, String> {
    if let Some(given) = env::var("TIDEGATE_REVISION").ok().filter(|given| !given.is_empty()) {
        return Ok(given);
    }
    if let Ok(packed) = fs::read_to_string(root.join(".cargo_vcs_info.json")) {
        let sha1 = packed.split_once("\"sha1\": \"").and_then(|(_, rest)| rest.split('"').next());
        return sha1.map(short).ok_or_else(|| "the crate it was built from does not name one".to_owned());
    }
    if !root.join(".git").exists() {
        return Err("it was built outside a git clone, without TIDEGATE_REVISION".to_owned());
    }
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        // A debug build names the commit of its last change; after each commit it would be built again for nothing.
        for file in ["HEAD", "logs/HEAD"] {
            println!("cargo:rerun-if-changed={}", said(git(root).args(["rev-parse", "--git-path", file]))?);
        }
    }
    let commit = said(git(root).args(["rev-parse", "HEAD"]))?;
    let changes = said(git(root).args(["status", "--porcelain", "--"]).args(SOURCES))?;
    Ok(short(&commit) + if changes.is_empty() { "" } else { "+changes" })
}

/// The date of the manual's pages: the same each time that the same sources are built.
fn date(root: &Path) -> Result<String, String> {
    println!("cargo:rerun-if-env-changed=SOURCE_DATE_EPOCH");
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        return said(Command::new("date").args(["-u", "+%F", "-d", &format!("@{epoch}")]));
    }
    if root.join(".git").exists() {
        return said(git(root).args(["log", "-1", "--format=%cs"]));
    }
    said(Command::new("date").args(["-u", "+%F", "-r"]).arg(root.join("Cargo.toml")))
}

fn short(commit: &str) -> String {
    commit.chars().take(12).collect()
}

fn git(root: &Path) -> Command {
    let mut git = Command::new("git");
    git.arg("-C").arg(root);
    git
}

/// What a program prints, without the end of the line.
fn said(command: &mut Command) -> Result<String, String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().map_err(|error| format!("{program} could not be run: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program} said: {}", errors.lines().next().unwrap_or("nothing")))
}
