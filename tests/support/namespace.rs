//! Namespaces for tests that need port 53, a resolv.conf or an interface of their own.
//!
//! Such a test runs itself again inside fresh network and mount namespaces, where only loopback exists and every port
//! is free. That needs root; without it the test fails and says so.

use std::{
    env,
    fs::{self, File},
    io::Write as _,
    ops::Deref,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};

use super::{
    authority::Certificate,
    encrypted::{Encrypted, Manner, Speaks},
    upstream::Upstream,
};

/// Set in the copy of the test inside the namespaces.
const INSIDE: &str = "TIDEGATE_TEST_INSIDE_NAMESPACE";

/// The folder where `ip netns` keeps its namespaces.
const NETWORKS: &str = "/run/netns";

/// Runs `body` inside namespaces of its own. The harness names the calling test's thread after the test.
#[track_caller]
pub fn inside_own(body: impl FnOnce()) {
    let test = thread::current().name().expect("a test's thread has its name").to_owned();
    inside(&test, body);
}

/// Runs `start` on a thread that cannot open netlink sockets, nor can the programs that it starts.
pub fn without_netlink<T: Send>(start: impl FnOnce() -> T + Send) -> T {
    let netlink = u64::from(libc::AF_NETLINK.unsigned_abs());
    let family = SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, netlink);
    let rule = SeccompRule::new(vec![family.expect("the first argument")]).expect("a condition");
    let architecture = env::consts::ARCH.try_into().expect("seccomp knows it");
    let unsupported = SeccompAction::Errno(libc::EAFNOSUPPORT.unsigned_abs());
    let filter =
        SeccompFilter::new([(libc::SYS_socket, vec![rule])].into(), SeccompAction::Allow, unsupported, architecture);
    let filter: BpfProgram = filter.and_then(TryInto::try_into).expect("a filter");
    let limited = || {
        seccompiler::apply_filter(&filter).expect("a thread may limit itself");
        start()
    };
    thread::scope(|scope| scope.spawn(limited).join().expect("the start succeeds"))
}

/// Runs `body` inside namespaces of its own; `test` is the full name of the calling test.
#[track_caller]
#[expect(clippy::print_stdout, reason = "the harness shows what the copy said beside a failure, or with --nocapture")]
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
    print!("{out}{err}");
}

/// Another network inside the namespaces of a test, behind its own link.
#[derive(Debug, Clone)]
pub struct Network {
    name: String,
}

impl Network {
    /// Creates a network joined to the test's by a pair of devices: `device` here, with addresses such as
    /// `10.1.0.1/24`, and `far` in the new network.
    #[track_caller]
    pub fn behind(device: &str, near: &[&str], far: &[&str]) -> Self {
        assert!(env::var(INSIDE).is_ok(), "networks are only made inside a namespace");
        if !Path::new(NETWORKS).join("mounted").exists() {
            // Namespaces are named by files in a folder that all tests of the host share.
            fs::create_dir_all(NETWORKS).expect("root makes folders");
            command(&["mount", "-t", "tmpfs", "networks", NETWORKS]);
            fs::write(Path::new(NETWORKS).join("mounted"), "").expect("a new file system is writable");
        }
        let network = Self { name: format!("behind-{device}") };
        command(&["ip", "netns", "add", &network.name]);
        command(&["ip", "link", "add", device, "type", "veth", "peer", "name", "far", "netns", &network.name]);
        for address in near {
            command(&["ip", "address", "add", address, "dev", device]);
        }
        for address in far {
            network.command(&["ip", "address", "add", address, "dev", "far"]);
        }
        batch(&[], &ask_again_soon(device));
        batch(&["ip", "netns", "exec", &network.name], &ask_again_soon("far"));
        command(&["ip", "link", "set", device, "up"]);
        network.command(&["ip", "link", "set", "far", "up"]);
        // Traffic to one's own address uses lo.
        network.command(&["ip", "link", "set", "lo", "up"]);
        network
    }

    /// Joins the network again by a new pair of devices. The near one gets its name, its addresses, its carrier and
    /// what `more` says in one call of ip, so that a busy machine leaves no time between them.
    #[track_caller]
    pub fn join_again(&self, device: &str, near: &str, far: &str, more: &str) {
        command(&["ip", "link", "add", "coming", "type", "veth", "peer", "name", "far", "netns", &self.name]);
        let end = |device: &str, address: &str| {
            let nodad = if address.contains(':') { "nodad" } else { "" };
            let address = format!("address add {address} dev {device} {nodad}");
            format!("link set {device} addrgenmode none\n{}{address}\nlink set {device} up\n", ask_again_soon(device))
        };
        batch(&["ip", "netns", "exec", &self.name], &end("far", far));
        batch(&[], &format!("link set coming name {device}\n{}{more}\n", end(device, near)));
    }

    /// Runs a command in the network; it must succeed.
    #[track_caller]
    pub fn command(&self, words: &[&str]) {
        command(&[&["ip", "netns", "exec", &self.name], words].concat());
    }

    /// Starts a scripted upstream in the network.
    #[track_caller]
    pub fn upstream(&self, address: &str) -> UpstreamAway {
        let address = address.parse().expect("an address and a port");
        let server = self.on_a_thread(|| Upstream::start_at(address));
        UpstreamAway { network: self.clone(), server: Some(server) }
    }

    /// Starts a scripted encrypted server in the network.
    #[track_caller]
    pub fn encrypted(&self, address: &str, speaks: Speaks, certificate: &Certificate) -> Encrypted {
        let address = address.parse().expect("an address and a port");
        self.on_a_thread(|| Encrypted::start_at(address, speaks, certificate, Manner::Answers))
    }

    /// Runs `work` on a thread in the network. Threads that it starts stay there.
    fn on_a_thread<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new(NETWORKS).join(&self.name)).expect("a network has a file");
        let there = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).expect("root moves threads");
            work()
        };
        thread::scope(|scope| scope.spawn(there).join().expect("the work ends"))
    }
}

/// A scripted upstream in another network.
pub struct UpstreamAway {
    network: Network,
    server: Option<Upstream>,
}

impl Deref for UpstreamAway {
    type Target = Upstream;

    fn deref(&self) -> &Upstream {
        self.server.as_ref().expect("there until it is dropped")
    }
}

impl Drop for UpstreamAway {
    fn drop(&mut self) {
        // It stops by sending itself a message, which only arrives from inside its network.
        let server = self.server.take();
        self.network.on_a_thread(|| drop(server));
    }
}

/// Replaces a file of the host within this mount namespace, using a copy in `folder`.
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

/// Commands of ip that have neighbour discovery repeat a lost request soon. By default the kernel waits a second: for so
/// long nothing leaves by a device that has just come up, and a server behind it is silent like one that is down.
fn ask_again_soon(device: &str) -> String {
    ["arp_cache", "ndisc_cache"].map(|table| format!("ntable change name {table} dev {device} retrans 20\n")).concat()
}

/// Runs commands of ip in one process, by way of the program `through`; all must succeed.
#[track_caller]
fn batch(through: &[&str], lines: &str) {
    let words = [through, &["ip", "-batch", "-"]].concat();
    let child = Command::new(words[0]).args(&words[1..]).stdin(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("cannot run {}: {error}", words[0]));
    child.stdin.take().expect("it is piped").write_all(lines.as_bytes()).expect("ip reads its commands");
    let output = child.wait_with_output().expect("a child can be waited for");
    assert!(output.status.success(), "{lines}: {}", String::from_utf8_lossy(&output.stderr));
}
