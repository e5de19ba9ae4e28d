//! The demonstration as a person sees it: on a terminal, with the printed lines tried and every key pressed.

mod support;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Child, ChildStdin, Command, Output, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rstest::rstest;
use support::{PATIENCE, eventually, now, tidegate::run};

/// `tidegate demo` on a pseudo-terminal of its own, which `script` makes.
struct Demo {
    child: Child,
    keys: ChildStdin,
    screen: Arc<Mutex<String>>,
}

impl Demo {
    #[track_caller]
    fn start(options: &str) -> Self {
        let command = format!("exec {} demo {options}", env!("CARGO_BIN_EXE_tidegate"));
        let mut child = Command::new("script")
            .args(["--quiet", "--flush", "--return", "--command", &command, "/dev/null"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("script, of Debian's bsdutils, is there");
        let (keys, mut out) = (child.stdin.take().expect("a pipe"), child.stdout.take().expect("a pipe"));
        let screen = Arc::new(Mutex::new(String::new()));
        let shown = Arc::clone(&screen);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = out.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..length]).replace('\r', "");
                shown.lock().expect("nobody panics with it").push_str(&text);
            }
        });
        let demo = Self { child, keys, screen };
        demo.shows(0, "so does Ctrl-C");
        demo
    }

    fn screen(&self) -> String {
        self.screen.lock().expect("nobody panics with it").clone()
    }

    /// Waits until the screen shows this behind its first `from` octets.
    #[track_caller]
    fn shows(&self, from: usize, text: &str) {
        let start = now();
        while !self.screen()[from..].contains(text) {
            assert!(start.elapsed() < PATIENCE, "no {text:?} in\n{}", self.screen());
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }

    /// Presses a key and Enter, and waits until the screen shows this.
    #[track_caller]
    fn press(&mut self, key: &str, text: &str) {
        let from = self.screen().len();
        writeln!(self.keys, "{key}").expect("it reads keys");
        self.shows(from, text);
    }

    /// Asks how all is until this server is in this state.
    #[track_caller]
    fn becomes(&mut self, server: &str, state: &str) {
        let start = now();
        loop {
            let from = self.screen().len();
            self.press("?", "the site's DNS (");
            self.shows(from, "; to tidegate");
            let is_line = |line: &str| line.starts_with(server) && line.contains("; to tidegate it is ");
            let screen = self.screen();
            let line = screen[from..].lines().rfind(|line| is_line(line)).unwrap_or_default();
            if line.ends_with(&format!(" {state}")) {
                return;
            }
            assert!(start.elapsed() < PATIENCE, "{server} is not {state}: {}", self.screen());
        }
    }

    /// The `dig` lines that it prints, as shells would take them.
    fn digs(&self) -> Vec<String> {
        let screen = self.screen();
        screen.lines().filter(|line| line.trim_start().starts_with("dig @")).map(str::to_owned).collect()
    }

    /// The words that begin a `dig` through the relay.
    fn dig(&self, rest: &str) -> String {
        let line = self.digs()[0].clone();
        let words: Vec<&str> = line.split_whitespace().take(4).collect();
        shell(&format!("{} {rest}", words.join(" ")))
    }

    /// Seconds that tidegate has been up, as its status document says.
    fn uptime(&self) -> u64 {
        let screen = self.screen();
        let page = screen.split("http://").nth(1).and_then(|rest| rest.split('/').next()).expect("a status page");
        let mut stream = TcpStream::connect(page).expect("the page is served");
        write!(stream, "GET /api/v1/status HTTP/1.1\r\nHost: {page}\r\nConnection: close\r\n\r\n").expect("it reads");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("it answers");
        let document = text.split_once("\r\n\r\n").expect("a body").1;
        let document: serde_json::Value = serde_json::from_str(document).expect("a document");
        document["uptime"].as_u64().expect("a number")
    }

    /// Waits for its end, and gives the exit code.
    #[track_caller]
    fn end(mut self) -> Option<i32> {
        let start = now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                return status.code();
            }
            assert!(start.elapsed() < PATIENCE, "it does not end: {}", self.screen());
            thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // The terminal goes with `script`, and the demonstration with its terminal.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn shell(line: &str) -> String {
    text(&Command::new("sh").args(["-c", line]).output().expect("there is a shell"))
}

/// What tidegate asks by itself at the start, it may still ask while the first scenes play.
#[test]
fn the_script_succeeds_each_time() {
    for options in [&["demo", "--script"][..], &["demo", "--script"], &["demo", "--script", "--encrypted"]] {
        let output = run(options);
        assert!(output.status.success() && text(&output).contains("16 passed, 0 failed"), "{}", text(&output));
    }
}

#[rstest]
#[case::plain("")]
#[case::encrypted("--encrypted")]
fn printed_commands_work_even_after_many_rounds_of_probes(#[case] options: &str) {
    let mut demo = Demo::start(options);
    // Servers are probed every 400 ms, and down after three probes in vain.
    eventually("four seconds", || demo.uptime() >= 4);
    for server in ["inbound 1", "inbound 2", "the site's DNS"] {
        demo.becomes(server, "up");
    }

    let lines = demo.digs();
    assert_eq!(lines.len(), 6, "{lines:?}");
    for line in &lines {
        let answer = shell(line);
        let expected = match line {
            line if line.contains("what a public DNS says") => ["NOERROR", "203.0.113.80"],
            line if line.contains("private") => ["NOERROR", "10.20.1."],
            line if line.contains("from the site's DNS") => ["NOERROR", "10.1.5.10"],
            _ => ["SERVFAIL", "EDE: 15 (Blocked)"],
        };
        assert!(expected.iter().all(|expected| answer.contains(expected)), "{line}: {answer}");
    }
    for told in [
        "127.0.0.1 asks s3.eu-west-1.amazonaws.com. A: 10.20.",
        "; asked inbound ",
        "127.0.0.1 asks intranet.corp.example. A: 10.1.5.10; asked the site's DNS; ",
        "127.0.0.1 asks files.corp.example. A: 10.20.",
        "127.0.0.1 asks iam.amazonaws.com. A: SERVFAIL (Blocked: ",
    ] {
        demo.shows(0, told);
    }

    let from = demo.screen().len();
    let query = demo.screen();
    let query = query.lines().find_map(|line| line.split_once("tidegate query ")).expect("a query line").1.to_owned();
    assert!(
        demo.screen().contains(&format!("  {} query ", env!("CARGO_BIN_EXE_tidegate"))),
        "the program as it was run"
    );
    let output = run(&[&["query"][..], &query.split_whitespace().collect::<Vec<_>>()].concat());
    assert!(output.status.success() && text(&output).contains("10.20.1.21"), "{}", text(&output));
    demo.shows(from, "asks s3.eu-west-1.amazonaws.com. A");
    assert!(demo.dig("+tcp localhost").contains("127.0.0.1"));
    demo.shows(from, "127.0.0.1 asks over TCP localhost. A: 127.0.0.1; tidegate itself; ");

    demo.press("q", "");
    assert_eq!(demo.end(), Some(0));
}

#[rstest]
#[case::plain("")]
#[case::encrypted("--encrypted")]
fn each_key_does_what_it_says(#[case] options: &str) {
    let mut demo = Demo::start(options);
    demo.press("fly", "there is no key \"fly\"");

    assert!(demo.dig("intranet.corp.example").contains("10.1.5.10"));
    demo.press("s", "is cut: it answers nothing");
    demo.becomes("the site's DNS", "down");
    demo.shows(0, "down");
    assert!(demo.dig("new.corp.example").contains("SERVFAIL"), "nobody knows it");
    assert!(demo.dig("while-cut.s3.eu-west-1.amazonaws.com").contains("10.20.1.21"), "not the VPC's affair");
    let from = demo.screen().len();
    demo.press("s", "is mended");
    demo.becomes("the site's DNS", "up");
    demo.shows(from, "of group site is up: ");
    assert!(demo.dig("wiki.corp.example").contains("10.1.5.11"));

    demo.press("1", "inbound 1");
    demo.becomes("inbound 1", "down");
    let from = demo.screen().len();
    assert!(demo.dig("one.s3.eu-west-1.amazonaws.com").contains("10.20.1.21"));
    demo.shows(from, "one.s3.eu-west-1.amazonaws.com. A: 10.20.");
    demo.press("2", "inbound 2");
    demo.becomes("inbound 2", "down");
    eventually("an answer past its TTL", || demo.dig("one.s3.eu-west-1.amazonaws.com").contains("EDE: 3"));
    demo.shows(from, "from the cache, past its TTL");
    assert!(demo.dig("two.s3.eu-west-1.amazonaws.com").contains("SERVFAIL"));
    demo.press("1", "is mended");
    demo.press("2", "is mended");
    demo.becomes("inbound 1", "up");
    demo.becomes("inbound 2", "up");

    demo.press("p", "answers with public addresses");
    assert!(demo.dig("three.s3.eu-west-1.amazonaws.com").contains("EDE: 15"));
    demo.press("p", "is mended");
    assert!(demo.dig("four.s3.eu-west-1.amazonaws.com").contains("10.20.1.21"));

    // Ctrl-C, as a terminal sends it.
    demo.keys.write_all(b"\x03").expect("it reads keys");
    assert_eq!(demo.end(), Some(0));
}
