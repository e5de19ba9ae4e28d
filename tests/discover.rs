//! `tidegate discover` on recorded output of the AWS CLI; `discover_moto.py` does the same with the CLI itself.

mod support;

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Output,
};

use support::{
    config::Config,
    tidegate::{Tidegate, run},
};
use tempfile::TempDir;

const ADDRESSES: &str = "tests/data/resolver-addresses.json";
const ENDPOINTS: &str = "tests/data/resolver-endpoints.json";

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).expect("it is there")
}

fn folder_with(content: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("tidegate.toml");
    fs::write(&file, content).expect("the folder is writable");
    let name = file.display().to_string();
    (folder, name)
}

const FILE: &str = "\
# the site\r
[upstream.vpc]   # Direct Connect
servers = [
    \"10.20.1.10\",   # AZ 1
    \"10.20.9.10\",   # AZ 2
]
backup = [[\"10.60.1.10\"]]

[[forward]]
zones = [\"preset:aws\"]
to = \"vpc\"   # no line end behind this one";

#[test]
fn addresses_become_a_table_that_is_valid() {
    let output = run(&["discover", ADDRESSES]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(out(&output), "[upstream.vpc]\nservers = [\"10.20.1.10\", \"10.20.2.10\"]\n");

    let rule = "[[forward]]\nzones = [\"preset:aws\"]\nto = \"vpc\"\n";
    let (_folder, file) = folder_with(&(out(&output) + rule));
    let checked = run(&["check", &file]);
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));
}

/// As many as a group takes: the table is valid, and the rest is named.
#[test]
fn addresses_beyond_those_of_a_group_are_left_out_and_named() {
    let entries = (1..=18).map(|last| format!("{{\"Ip\": \"10.20.1.{last}\", \"Status\": \"ATTACHED\"}}"));
    let (_folder, list) = folder_with(&format!("{{\"IpAddresses\": [{}]}}", entries.collect::<Vec<_>>().join(",")));
    let output = run(&["discover", &list]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let table = out(&output);
    let comment = "# left out, since a group has at most 16 servers: 10.20.1.17, 10.20.1.18\n";
    assert!(table.starts_with(comment), "{table}");
    let (_folder, file) = folder_with(&(table + "[[forward]]\nzones = [\"preset:aws\"]\nto = \"vpc\"\n"));
    let checked = run(&["check", &file]);
    assert_eq!(checked.status.code(), Some(0), "{}", err(&checked));

    let (_folder, file) = folder_with(&FILE.replace("backup", "#"));
    let output = run(&["discover", &list, "--write", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).starts_with(comment), "{}", out(&output));
    assert!(text(Path::new(&file)).contains("10.20.1.16") && !text(Path::new(&file)).contains("10.20.1.17"));
}

#[test]
fn files_saved_by_powershell_are_read() {
    for file in ["tests/data/resolver-addresses-utf8-bom.json", "tests/data/resolver-addresses-utf16le-bom.json"] {
        let output = run(&["discover", file]);
        assert_eq!(output.status.code(), Some(0), "{file}: {}", err(&output));
        assert!(out(&output).contains("[upstream.vpc]\nservers = [\"10.20."), "{file}: {}", out(&output));
    }
    let output = run(&["discover", "/proc/self/exe"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("neither UTF-8 nor UTF-16"), "{}", err(&output));
}

#[test]
fn a_list_of_endpoints_is_refused_with_the_command_to_run() {
    let output = run(&["discover", ENDPOINTS]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("list-resolver-endpoint-ip-addresses"), "{}", err(&output));
    assert!(err(&output).contains("rslvr-in-1d357bb85a30b9dd5"), "{}", err(&output));
    assert_eq!(out(&output), "");
}

#[test]
fn writing_changes_the_servers_and_nothing_else() {
    let (folder, file) = folder_with(FILE);
    let path = Path::new(&file);
    fs::set_permissions(path, fs::Permissions::from_mode(0o640)).expect("it is ours");
    let before = fs::metadata(path).expect("it is there");

    let output = run(&["discover", ADDRESSES, "--write", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(text(path), FILE.replace("10.20.9.10", "10.20.2.10"));
    assert!(out(&output).contains("reload"), "it says how to go on: {}", out(&output));
    let after = fs::metadata(path).expect("it is there");
    assert_eq!((after.mode(), after.uid(), after.gid()), (before.mode(), before.uid(), before.gid()));
    assert_ne!(after.ino(), before.ino(), "replaced by rename");
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 1, "nothing is left beside it");

    let output = run(&["discover", ADDRESSES, "--write", &file]);
    assert!(out(&output).contains("already"), "{}", out(&output));
    assert_eq!(fs::metadata(path).expect("it is there").ino(), after.ino(), "not written again");
}

#[test]
fn the_daemon_of_a_file_that_was_written_reloads() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let socket = folder.path().join("control.sock");
    let upstream = "[upstream.vpc]\nservers = [\"127.0.0.1:9\"]";
    let config = Config::without_admin()
        .section("admin", &format!("http = \"127.0.0.1:0\"\nsocket = {:?}", socket.display().to_string()))
        .raw(upstream)
        .forward("aws", &["preset:aws"], "vpc", "");
    let tidegate = Tidegate::start(&config);
    let running = tidegate.folder().join("tidegate.toml").display().to_string();
    let servers = || tidegate.get("/api/v1/upstreams").1;
    assert!(!servers().contains("10.20.2.10"));
    let output = run(&["discover", ADDRESSES, "--write", &running]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(out(&output).contains("has reloaded"), "{}", out(&output));
    assert!(servers().contains("10.20.2.10"), "{}", servers());

    // Another file is written, and nobody reads it: that is said, with what is read.
    let (_folder, other) = folder_with(&config.text());
    let output = run(&["discover", ADDRESSES, "--write", &other]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    let said = err(&output);
    assert!(said.contains("is written, and not in force") && said.contains(&format!("reads {running}, not")), "{said}");

    // Of a file that is wrong elsewhere the daemon says so.
    fs::write(&running, config.text().replace("preset:aws", "preset:none")).expect("the folder is writable");
    let output = run(&["discover", ADDRESSES, "--write", &running]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(err(&output).contains("not in force") && err(&output).contains("preset \"none\""), "{}", err(&output));
}

#[test]
fn a_link_stays_a_link() {
    let (folder, file) = folder_with(FILE);
    let link = folder.path().join("link.toml");
    symlink(&file, &link).expect("the folder is writable");
    let output = run(&["discover", ADDRESSES, "--write", &link.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert!(fs::symlink_metadata(&link).expect("it is there").is_symlink());
    assert_eq!(text(Path::new(&file)), FILE.replace("10.20.9.10", "10.20.2.10"));
}

#[test]
fn a_new_group_is_added_and_only_to_a_file_that_is_there() {
    let (folder, file) = folder_with(FILE);
    let output = run(&["discover", ADDRESSES, "--write", &file, "--group", "second"]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    let added = "\n\n[upstream.second]\nservers = [\"10.20.1.10\", \"10.20.2.10\"]\n";
    assert_eq!(text(Path::new(&file)), FILE.to_owned() + added);

    let absent = folder.path().join("absent.toml").display().to_string();
    let output = run(&["discover", ADDRESSES, "--write", &absent]);
    assert_eq!(output.status.code(), Some(1));
    assert!(err(&output).contains("absent.toml"), "{}", err(&output));
    assert!(!Path::new(&absent).exists());
}

#[test]
fn a_file_that_would_become_wrong_stays_as_it_is() {
    // The group stands in a file that this one includes: a second table of that name would be an error.
    let main = "include = [\"more/*.toml\"]\n[[forward]]\nzones = [\"preset:aws\"]\nto = \"vpc\"\n";
    let (folder, file) = folder_with(main);
    fs::create_dir(folder.path().join("more")).expect("the folder is writable");
    let more = folder.path().join("more/vpc.toml");
    fs::write(&more, "[upstream.vpc]\nservers = [\"10.9.9.9\"]\n").expect("the folder is writable");
    let output = run(&["discover", ADDRESSES, "--write", &file]);
    assert_eq!(output.status.code(), Some(1), "{}", out(&output));
    assert!(err(&output).contains("more/vpc.toml"), "it says what would be wrong: {}", err(&output));
    assert_eq!(text(Path::new(&file)), main);
    assert_eq!(fs::read_dir(folder.path()).expect("readable").count(), 2, "nothing is left beside it");

    let output = run(&["discover", ADDRESSES, "--write", &more.display().to_string()]);
    assert_eq!(output.status.code(), Some(0), "a part of a configuration can be written: {}", err(&output));
    assert_eq!(text(&more), "[upstream.vpc]\nservers = [\"10.20.1.10\", \"10.20.2.10\"]\n");
}

#[test]
fn earlier_mistakes_in_a_file_do_not_prevent_an_edit() {
    let broken = "[upstream.vpc]\nservers = [\"10.20.1.10\", \"10.9.9.9\"]\nconnections = 0\n";
    let (_folder, file) = folder_with(broken);
    let output = run(&["discover", ADDRESSES, "--write", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", err(&output));
    assert_eq!(text(Path::new(&file)), broken.replace("10.9.9.9", "10.20.2.10"));
}
