//! What systemd hears from the daemon (sd_notify).

use std::{os::unix::net::UnixDatagram, path::Path};

use crate::support::{PATIENCE, config::Config, query::Query, tidegate::Tidegate, upstream::Upstream};

/// Waits for a notification with this assignment on a line of its own.
#[track_caller]
fn await_state(socket: &UnixDatagram, state: &str) {
    let mut buffer = [0; 4096];
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {state} in time: {error}"));
        if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == state) {
            return;
        }
    }
}

fn listen(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("the folder is writable");
    socket.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
    socket
}

#[test]
fn ready_and_stopping_are_told() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let socket = listen(&path);
    let upstream = Upstream::answering("10.0.0.1");
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let tidegate = Tidegate::start_by(&["env", &variable], &Config::forwarding_to(&[&upstream]));

    await_state(&socket, "READY=1");
    assert_eq!(tidegate.client().ask(&Query::a("www.example.")).address_texts(), ["10.0.0.1"]);
    assert_eq!(tidegate.stop().code(), Some(0));
    await_state(&socket, "STOPPING=1");
}

#[test]
fn ready_does_not_wait_for_an_upstream() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let socket = listen(&path);
    let mut upstream = Upstream::start();
    upstream.stop();
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let _tidegate = Tidegate::start_by(&["env", &variable], &Config::forwarding_to(&[&upstream]));
    await_state(&socket, "READY=1");
}
