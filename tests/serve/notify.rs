//! What systemd hears from the daemon (sd_notify).

use std::{os::unix::net::UnixDatagram, path::Path};

use crate::support::{
    PATIENCE,
    config::{Config, ONE_PATIENT_TRY},
    query::Query,
    tidegate::Tidegate,
    upstream::Upstream,
};

/// Waits for a notification with this assignment on a line of its own.
#[track_caller]
fn await_state(socket: &UnixDatagram, state: &str) {
    await_line(socket, |line| line == state);
}

/// Waits for a notification with such a line.
#[track_caller]
fn await_line(socket: &UnixDatagram, is_it: impl Fn(&str) -> bool) {
    let (mut buffer, mut seen) = ([0; 4096], Vec::new());
    loop {
        let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("not in time: {error}; {seen:#?}"));
        let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
        if text.lines().any(&is_it) {
            return;
        }
        seen.push(text);
    }
}

fn listen(path: &Path) -> UnixDatagram {
    let socket = UnixDatagram::bind(path).expect("the folder is writable");
    socket.set_read_timeout(Some(PATIENCE)).expect("a positive time-out");
    socket
}

#[test]
fn systemd_is_notified_of_ready_and_stopping() {
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

/// `WatchdogSec=` in the unit; without that, no word of it.
#[test]
fn the_watchdog_hears_that_the_daemon_works_where_systemd_asks() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let socket = listen(&path);
    let upstream = Upstream::answering("10.0.0.1");
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let config = Config::forwarding_to(&[&upstream]);
    let _watched = Tidegate::start_by(&["env", &variable, "WATCHDOG_USEC=15000000"], &config);
    await_state(&socket, "READY=1");
    // Again and again.
    await_state(&socket, "WATCHDOG=1");
    await_state(&socket, "WATCHDOG=1");
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

/// `systemctl status` shows it.
#[test]
fn the_status_line_follows_what_is_down() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("notify");
    let socket = listen(&path);
    let mut upstream = Upstream::answering("10.0.0.1");
    let variable = format!("NOTIFY_SOCKET={}", path.display());
    let lines = format!("{ONE_PATIENT_TRY}\n[upstream.site.health]\ninterval = \"200ms\"\ninterval_down = \"100ms\"");
    let config = Config::new().upstream("site", &[&upstream], &lines).forward("everything", &["."], "site", "");
    let tidegate = Tidegate::start_by(&["env", &variable], &config);

    await_state(&socket, "STATUS=all is well");
    upstream.stop();
    let server = format!("upstream {} of group site is down: ", upstream.address);
    await_line(&socket, |line| {
        line.starts_with("STATUS=upstream site: no server is usable: 1 down; ") && line.contains(&server)
    });
    tidegate.await_logged("WARN", "upstream site: no server is usable: 1 down");
    upstream.start_again();
    await_state(&socket, "STATUS=all is well");
    tidegate.await_logged("INFO", "upstream site has a usable server again");
}
