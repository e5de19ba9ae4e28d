//! A verb whose output nobody reads, or whose disk is full: it does not panic, and its exit code shows the result of
//! the order.

mod support;

use std::{
    fs::File,
    io::pipe,
    os::unix::process::ExitStatusExt,
    process::{Output, Stdio},
};

use support::{
    config::Config,
    tidegate::{Tidegate, run, run_into},
    upstream::Upstream,
};
use tempfile::TempDir;

/// A pipe that nobody reads from.
fn closed() -> Stdio {
    let (reader, writer) = pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

fn full() -> Stdio {
    File::options().write(true).open("/dev/full").expect("Linux has it").into()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The verb as it ends with all its output read.
struct Case {
    arguments: Vec<String>,
    verdict: i32,
}

/// Checks a verb's exit code with either stream closed or full.
#[track_caller]
fn holds(case: &Case) {
    let Case { arguments, verdict } = case;
    let whole = run(arguments);
    assert_eq!(whole.status.code(), Some(*verdict), "{arguments:?}: {whole:?}");
    let (writes_out, writes_err) = (!whole.stdout.is_empty(), !whole.stderr.is_empty());
    assert!(writes_out || writes_err, "{arguments:?} says nothing");

    let unread = run_into(closed(), Stdio::piped(), arguments);
    assert_eq!(unread.status.code(), Some(*verdict), "{arguments:?} into a closed pipe: {unread:?}");
    assert_eq!(err(&unread).is_empty(), !writes_err, "{arguments:?} into a closed pipe is silent about it: {unread:?}");

    let no_room = run_into(full(), Stdio::piped(), arguments);
    let expected = if writes_out { 1 } else { *verdict };
    assert_eq!(no_room.status.code(), Some(expected), "{arguments:?} into a full disk: {no_room:?}");
    if writes_out {
        let said = err(&no_room);
        let last = said.lines().last().unwrap_or_default();
        assert!(last.contains("no space left on device"), "{arguments:?}: {said}");
        assert_eq!(said.matches("no space left").count(), 1, "{arguments:?}: {said}");
    }

    for (stream, expected) in [(closed(), *verdict), (full(), if writes_err { 1 } else { *verdict })] {
        let unread = run_into(Stdio::piped(), stream, arguments);
        assert_eq!(unread.status.code(), Some(expected), "{arguments:?} with its errors unread: {unread:?}");
        assert_eq!(unread.status.signal(), None);
    }
}

/// The verbs that `--help` lists.
fn verbs() -> Vec<String> {
    let help = String::from_utf8(run(&["--help"]).stdout).expect("UTF-8");
    let (_, listed) = help.split_once("Commands:\n").expect("a list of verbs");
    let lines = listed.lines().take_while(|line| !line.is_empty());
    let words = lines.filter(|line| !line.starts_with("     ")).filter_map(|line| line.split_whitespace().next());
    let verbs: Vec<String> = words.map(str::to_owned).collect();
    assert!(verbs.contains(&"serve".to_owned()) && verbs.len() > 10, "{help}");
    verbs
}

#[test]
fn help_goes_into_closed_pipes_and_full_disks() {
    let help = |words: &[&str]| Case { arguments: words.iter().map(|&word| word.to_owned()).collect(), verdict: 0 };
    holds(&help(&["--help"]));
    holds(&help(&["--version"]));
    for verb in verbs() {
        holds(&help(&[&verb, "--help"]));
    }
    holds(&Case { arguments: Vec::new(), verdict: 2 });
    holds(&Case { arguments: vec!["fly".to_owned()], verdict: 2 });
}

/// A daemon with a control socket, and files to work on.
struct Site {
    _upstream: Upstream,
    tidegate: Tidegate,
    folder: TempDir,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let upstream = Upstream::answering("10.0.0.1");
        let socket = folder.path().join("control.sock").display().to_string();
        let admin = format!("http = \"127.0.0.1:0\"\nsocket = {socket:?}");
        let config = Config::without_admin().section("admin", &admin).upstream("site", &[&upstream], "").forward(
            "all",
            &["."],
            "site",
            "",
        );
        let tidegate = Tidegate::start(&config);
        std::fs::write(folder.path().join("bad.toml"), "[server]\nlisten = 5\n").expect("the folder is writable");
        let sick = "[server]\nlisten = [\"127.0.0.1:0\"]\n[upstream.none]\nservers = [\"127.0.0.1:1\"]\n[[forward]]\n\
                    zones = [\".\"]\nto = \"none\"\n";
        std::fs::write(folder.path().join("sick.toml"), sick).expect("the folder is writable");
        Self { _upstream: upstream, tidegate, folder }
    }

    fn case(&self, verdict: i32, line: &str) -> Case {
        let address = self.tidegate.address();
        let admin = self.tidegate.admin_address();
        let folder = self.folder.path().display();
        let running = self.tidegate.folder().display().to_string();
        let words = line.split(' ').map(|word| match word {
            "@server" => format!("@{address}"),
            "URL" => format!("http://{admin}"),
            "SOCKET" => format!("{folder}/control.sock"),
            "GOOD" => format!("{running}/tidegate.toml"),
            "BAD" => format!("{folder}/bad.toml"),
            "SICK" => format!("{folder}/sick.toml"),
            word => word.to_owned(),
        });
        Case { arguments: words.collect(), verdict }
    }
}

/// Each verb with arguments that make it print something, and its exit code. `serve` and `demo` run until stopped.
const CASES: &[(i32, &str)] = &[
    (0, "check GOOD"),
    (0, "check --defaults"),
    (2, "check BAD"),
    (2, "serve --config BAD"),
    (0, "query www.example @server"),
    (0, "query www.example @server --json"),
    (2, "query www..example @server"),
    (0, "explain www.example --config GOOD"),
    (0, "explain www.example --socket SOCKET"),
    (0, "explain www.example --json --admin URL"),
    (1, "explain www.example --admin http://127.0.0.1:1"),
    (2, "explain www.example --config BAD"),
    (0, "test config/expectations/site.toml"),
    (0, "test config/expectations/site.toml --json"),
    (2, "test BAD"),
    (0, "discover tests/data/resolver-addresses.json"),
    (1, "discover tests/data/resolver-endpoints.json"),
    (1, "doctor --config SICK"),
    (2, "doctor --config BAD"),
    (0, "import tests/data/import/unbound/01-site.conf"),
    (1, "import tests/data/import/unbound/05-recursive.conf"),
    (2, "import tests/data/import/corp.example.zone"),
    (0, "perimeter --admin URL"),
    (0, "perimeter --json --admin URL"),
    (1, "perimeter --admin http://127.0.0.1:1"),
    (1, "status --admin http://127.0.0.1:1"),
    (1, "status --live --admin http://127.0.0.1:1"),
    (0, "top --once --interval 100ms --socket SOCKET"),
    (1, "top --once --socket /nonexistent/control.sock --admin http://127.0.0.1:1"),
    (0, "reload --socket SOCKET"),
    (0, "reload --socket SOCKET --json"),
    (0, "drain 127.0.0.1 --socket SOCKET"),
    (0, "undrain 127.0.0.1 --socket SOCKET"),
    (2, "drain 192.0.2.1 --socket SOCKET"),
    (0, "flush --all --socket SOCKET"),
    (0, "log info --socket SOCKET"),
    (0, "cache export --socket SOCKET"),
    (1, "cache import --socket SOCKET"),
    (1, "reload --socket /nonexistent/control.sock"),
    (0, "presets"),
    (0, "presets --json"),
    (0, "schema"),
    (0, "version"),
    (0, "version --json"),
    (0, "completions bash"),
    (0, "man"),
];

#[test]
fn a_verb_ends_with_its_own_verdict_whoever_reads() {
    let site = Site::new();
    for &(verdict, line) in CASES {
        holds(&site.case(verdict, line));
    }
}

#[test]
fn every_verb_is_tried() {
    let tried = |verb: &str| CASES.iter().any(|(_, line)| line.split(' ').next() == Some(verb));
    let untried: Vec<String> = verbs().into_iter().filter(|verb| !tried(verb) && verb != "demo").collect();
    assert!(untried.is_empty(), "add lines for {untried:?} to CASES");
}

#[test]
fn a_demonstration_that_nobody_reads_ends() {
    let output = run_into(closed(), Stdio::piped(), &["demo"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(err(&output), "");
    let output = run_into(full(), Stdio::piped(), &["demo"]);
    assert_eq!(output.status.code(), Some(1), "{}", err(&output));
}
