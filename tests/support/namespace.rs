//! Tests that need port 53, a resolv.conf or an interface of their own.
//!
//! Such a test runs itself again inside fresh network and mount namespaces, where only loopback exists and every port
//! is free. That needs root; without it the test fails and says so.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Set in the copy of the test that runs inside.
const INSIDE: &str = "TIDEGATE_TEST_INSIDE_NAMESPACE";

/// Runs `body` inside namespaces of its own; `test` is the full name of the calling test.
#[track_caller]
pub fn inside(test: &str, body: impl FnOnce()) {
    if env::var(INSIDE).is_ok_and(|name| name == test) {
        return body();
    }
    let binary = env::current_exe().expect("a test knows its binary");
    let output = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "private", "sh", "-ec"])
        .arg("ip link set lo up; exec \"$0\" \"$@\"")
        .arg(binary)
        .args([test, "--exact", "--nocapture", "--include-ignored"])
        .env(INSIDE, test)
        .stdin(Stdio::null())
        .output()
        .expect("unshare runs; install it with: apt-get install util-linux iproute2");
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if err.contains("Operation not permitted") && !err.contains("panicked") {
        panic!("this test makes namespaces, which needs root (or CAP_SYS_ADMIN): {err}");
    }
    assert!(output.status.success(), "inside the namespaces:\n{out}\n{err}");
    assert!(out.contains("1 passed"), "no test of the name {test} ran inside the namespaces:\n{out}");
}

/// Gives this mount namespace another text for a file of the host, from a copy in `folder`.
#[track_caller]
pub fn replace_file(folder: &Path, path: &str, text: &str) {
    assert!(env::var(INSIDE).is_ok(), "files are only replaced inside a namespace");
    let copy = folder.join(path.trim_start_matches('/').replace('/', "_"));
    fs::write(&copy, text).expect("the folder is writable");
    let target = fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path));
    command(&["mount", "--bind", &copy.display().to_string(), &target.display().to_string()]);
}

/// Runs a command that must succeed.
#[track_caller]
pub fn command(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("cannot run {}: {error}", words[0]));
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
