//! Orders to the running daemon over its control socket, as an operator gives them.

#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

mod drain;
mod flush;
mod log_level;
mod reload;
mod socket;

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use support::{
    config::Config,
    query::Query,
    tidegate::{Tidegate, run},
};
use tempfile::TempDir;

struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("control.sock")
    }

    /// A configuration with a control socket here.
    fn config(&self) -> Config {
        self.config_at(&self.socket())
    }

    fn config_at(&self, socket: &Path) -> Config {
        Config::without_admin().section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = \"{}\"", socket.display()))
    }

    #[track_caller]
    fn order(&self, words: &[&str]) -> Output {
        let socket = self.socket().display().to_string();
        run(&[words, &["--socket", &socket]].concat())
    }

    /// A verb's output and its exit code.
    #[track_caller]
    fn says(&self, words: &[&str]) -> (Option<i32>, String) {
        let Output { status, stdout, stderr } = self.order(words);
        (status.code(), String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap())
    }
}

fn ask(tidegate: &Tidegate, n: usize) -> Vec<String> {
    tidegate.client().ask(&Query::a(&format!("n{n}.example."))).address_texts()
}
