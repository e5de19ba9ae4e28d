//! Networks of our own: the program runs itself again inside fresh network and mount namespaces, where only loopback
//! exists, and puts upstreams into further ones behind links that it can cut. All of it is gone when it ends.

use std::{
    env,
    fs::File,
    net::UdpSocket,
    os::fd::AsFd,
    path::Path,
    process::{Command, Stdio},
    thread,
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::{
    Result,
    upstream::{Nature, Upstream},
};

/// Where `ip netns` keeps its namespaces.
const NETWORKS: &str = "/run/netns";
const UNSHARE: [&str; 4] = ["--net", "--mount", "--propagation", "private"];
/// The host's `/run` is not ours to write in.
const PREPARE: &str = "ip link set lo up; mount -t tmpfs run /run; mkdir /run/netns; nft list tables >/dev/null";

/// Whether namespaces can be made, and links in them be cut.
pub(crate) fn are_possible() -> bool {
    let trial = Command::new("unshare").args(UNSHARE).args(["sh", "-ec", PREPARE]).stderr(Stdio::null()).status();
    trial.is_ok_and(|status| status.success())
}

/// Runs this program with these arguments inside namespaces of its own.
pub(crate) fn run_inside(arguments: &[String]) -> Result<()> {
    // The kernel ends it when we end, however we do.
    let status = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--", "unshare"])
        .args(UNSHARE)
        .args(["sh", "-ec", &format!("{PREPARE}; exec \"$0\" \"$@\"")])
        .arg(env::current_exe()?)
        .args(arguments)
        .status()?;
    if status.success() { Ok(()) } else { Err("it failed inside its namespaces".into()) }
}

/// A network behind a link.
pub(crate) struct Network {
    device: &'static str,
}

impl Network {
    /// A network that is joined to ours by a pair of devices: `device` here and `far` there, each with one address.
    pub(crate) fn behind(device: &'static str, near: &str, far: &str) -> Result<Self> {
        command(&["ip", "netns", "add", device])?;
        let network = Self { device };
        command(&["ip", "link", "add", device, "type", "veth", "peer", "name", "far", "netns", device])?;
        command(&["ip", "address", "add", near, "dev", device])?;
        network.command(&["ip", "address", "add", far, "dev", "far"])?;
        command(&["ip", "link", "set", device, "up"])?;
        network.command(&["ip", "link", "set", "far", "up"])?;
        Ok(network)
    }

    /// An upstream there.
    pub(crate) fn upstream(&self, address: &str, nature: Nature) -> Result<Upstream> {
        let namespace = File::open(Path::new(NETWORKS).join(self.device))?;
        let bind = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            UdpSocket::bind(address)
        };
        // A socket stays in the network that it was made in, whoever uses it.
        let socket = thread::scope(|scope| scope.spawn(bind).join());
        Upstream::on(socket.map_err(|_| "no socket in another network")??, nature)
    }

    /// The link goes down at our end.
    pub(crate) fn take_down(&self) -> Result<()> {
        command(&["ip", "link", "set", self.device, "down"])
    }

    /// Every datagram is dropped at the far end, going and coming, and nobody says so.
    pub(crate) fn silence(&self) -> Result<()> {
        let chain = |hook: &str, device: &str| {
            format!("chain {hook} {{ type filter hook {hook} priority 0; {device} far drop; }};")
        };
        let chains = chain("input", "iifname") + &chain("output", "oifname");
        self.command(&["nft", &format!("table inet way {{ {chains} }}")])
    }

    fn command(&self, words: &[&str]) -> Result<()> {
        command(&[&["ip", "netns", "exec", self.device], words].concat())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // The next network may have its name. What is left ends with the namespace that all of it is in.
        command(&["ip", "link", "delete", self.device]).ok();
        command(&["ip", "netns", "delete", self.device]).ok();
    }
}

/// Runs a command that must succeed.
fn command(words: &[&str]) -> Result<()> {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr)).into())
}
