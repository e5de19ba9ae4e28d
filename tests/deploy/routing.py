#!/usr/bin/env python3
"""Two hosts behind one address: deploy/keepalived and deploy/anycast in network namespaces.

    tests/deploy/routing.py TARGET/debug/tidegate

The files as they are shipped, but for time-outs that nobody wants to wait for. Needs root, keepalived, bird2, unbound, curl;
frr for the second host of the anycast address, which has BIRD without. Prints how many queries were lost, how often a
stub resolver with a time-out of 5 s had to ask again, and how long each move took.
"""

import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

from support import ROOT, Running, ask, eventually, inside_namespaces

NAME = "s3.eu-west-1.amazonaws.com"
SHARED, ANYCAST = "10.1.1.5", "10.53.53.53"
# A tmpfs of these namespaces, since keepalived runs scripts only from folders that nobody else may write to.
FOLDER = pathlib.Path("/srv")

UNBOUND = """
server:
  interface: 10.20.1.10
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  pidfile: ""
  directory: "/srv"
  use-syslog: no
  local-zone: "amazonaws.com." redirect
  local-data: "amazonaws.com. 1 A 10.20.1.21"
"""

TIDEGATE = f"""
[server]
listen = ["{SHARED}:53", "{ANYCAST}:53", "127.0.0.1:53"]
freebind = true
[admin]
socket = ""
[upstream.vpc]
servers = ["10.20.1.10"]
[[forward]]
zones = ["preset:aws"]
to = "vpc"
private = ["10.20.0.0/16"]
on_public = "refuse"
"""

ROUTER = """
router id 10.1.1.1;
protocol device {}
template bgp host {
    local 10.1.1.1 as 65001;
    hold time 3;
    keepalive time 1;
    connect retry time 1;
    ipv4 { import all; export none; };
}
protocol bgp one from host { neighbor 10.1.1.2 as 65010; }
protocol bgp two from host { neighbor 10.1.1.3 as 65010; }
protocol kernel { ipv4 { export all; }; }
"""


def main():
    syntax()
    inside_namespaces()
    with Running() as running:
        network(pathlib.Path(sys.argv[1]).resolve())
        (FOLDER / "unbound.conf").write_text(UNBOUND)
        running.start(*within("router", "unbound", "-d", "-c", FOLDER / "unbound.conf"))
        hosts = {name: Host(running, name) for name in ("one", "two")}
        shared_address(running, hosts)
        anycast(running, hosts)
    print("routing: passed")


def syntax():
    run = lambda *words: subprocess.run(words, check=True)
    run("bird", "-p", "-c", ROOT / "deploy/anycast/bird.conf")
    if shutil.which("vtysh"):
        run("vtysh", "-C", "-f", ROOT / "deploy/anycast/frr.conf")
    else:
        print("note: there is no vtysh (Debian package frr); deploy/anycast/frr.conf is not checked", file=sys.stderr)
    unit = ROOT / "deploy/anycast/tidegate-announce.service"
    complaints = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True).stderr
    # The program is not installed where the test runs.
    wrong = [line for line in complaints.splitlines() if "tidegate-announce is not executable" not in line]
    assert not wrong, wrong


def network(binary):
    """A switch, two hosts and a router on it; behind the router the inbound endpoint. The test is the client."""
    sh(f"""
        mount -t tmpfs -o mode=755 tmpfs {FOLDER}
        mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
        mkdir {FOLDER}/bin
        ip link add lan type bridge && ip link set lan up && ip address add 10.1.1.100/24 dev lan
        for host in router:1 one:2 two:3; do
            name=${{host%:*}} number=${{host#*:}}
            ip netns add $name
            ip link add lan-$name type veth peer name eth0 netns $name
            ip link set lan-$name master lan up
            ip -n $name link set lo up
            ip -n $name link set eth0 up
            ip -n $name address add 10.1.1.$number/24 dev eth0
        done
        ip -n router address add 10.20.1.10/32 dev lo
        # Its clients are on the same switch; they must go on asking it for the way.
        ip netns exec router sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.send_redirects=0 net.ipv4.conf.eth0.send_redirects=0
        for name in one two; do
            ip -n $name route add 10.20.0.0/16 via 10.1.1.1
            ip -n $name address add {ANYCAST}/32 dev lo
        done
        ip route add {ANYCAST}/32 via 10.1.1.1
    """)
    shutil.copy(binary, FOLDER / "bin/tidegate")
    for script in ("health/tidegate-check", "anycast/tidegate-announce"):
        shutil.copy(ROOT / "deploy" / script, FOLDER / "bin")


class Host:
    """A tidegate in its namespace."""

    def __init__(self, running, name):
        self.running, self.name = running, name
        (FOLDER / "tidegate.toml").write_text(TIDEGATE)
        self.start()

    def start(self):
        self.process = self.running.start(
            *within(self.name, FOLDER / "bin/tidegate", "serve", "--config", FOLDER / "tidegate.toml")
        )

    def kill(self):
        self.running.stop(self.process, signal.SIGKILL)

    def has(self, address):
        return address in sh(f"ip -n {self.name} address show dev eth0")

    def link(self, action):
        """Cuts or mends this host's way to the VPC."""
        sh(f"ip -n {self.name} route {'add' if action == 'cut' else 'del'} blackhole 10.20.1.10/32")


def shared_address(running, hosts):
    one, two = hosts["one"], hosts["two"]
    shipped = (ROOT / "deploy/keepalived/keepalived.conf").read_text()
    shipped = shipped.replace("/usr/lib/tidegate/", f"{FOLDER}/bin/").replace("preempt_delay 30", "preempt_delay 1")
    other = shipped.replace("priority 110", "priority 100")
    other = other.replace("unicast_src_ip 10.1.1.2", "unicast_src_ip 10.1.1.X").replace("10.1.1.3", "10.1.1.2")
    texts = {"one": shipped, "two": other.replace("10.1.1.X", "10.1.1.3")}
    keepalived = {}
    for name, text in texts.items():
        file = FOLDER / f"keepalived-{name}.conf"
        file.write_text(text)
        path = f"PATH={FOLDER}/bin:/usr/bin:/bin:/usr/sbin:/sbin"
        # keepalived 2.2.7 kills itself in a test of the configuration when it takes on another user to look at a script.
        tested = FOLDER / "tested.conf"
        tested.write_text(text.replace("script_user nobody", "script_user root"))
        said = subprocess.run(within(name, "keepalived", "-t", "-f", tested), capture_output=True, text=True)
        assert said.returncode == 0 and not said.stderr.strip(), said.stderr
        pids = (f"--pid={FOLDER}/keepalived-{name}.pid", f"--vrrp_pid={FOLDER}/vrrp-{name}.pid")
        keepalived[name] = running.start(*within(name, "env", path, "keepalived", "-nlDP", "-f", file, *pids))
    eventually("the first host has the shared address", lambda: one.has(SHARED) and not two.has(SHARED))
    eventually("it answers there", lambda: answered(SHARED))

    with Client(SHARED, "tidegate of the first host is killed") as client:
        one.kill()
        eventually("the second host has the address", lambda: two.has(SHARED) and not one.has(SHARED))
    # One on a machine that has the time; a busy one is late with keepalived's checks.
    assert client.most_retries <= 2, client.most_retries
    with Client(SHARED, "it is started again"):
        one.start()
        eventually("the first host has the address again", lambda: one.has(SHARED) and not two.has(SHARED))
    eventually("it answers there, and knows the name again", lambda: answered(SHARED))
    with Client(SHARED, "the first host loses its way to the VPC"):
        one.link("cut")
        eventually("the second host has the address", lambda: two.has(SHARED) and not one.has(SHARED))
    with Client(SHARED, "the second host loses it, too"):
        two.link("cut")
        eventually("both hosts know", lambda: all("ready: fail" in vrrp(running, keepalived[name]) for name in keepalived))
        eventually("stale answers go on", lambda: answered(SHARED))
    assert one.has(SHARED) or two.has(SHARED), "nobody has the address in an outage of both"
    for host in (one, two):
        host.link("mend")
    eventually("the first host has the address in the end", lambda: one.has(SHARED))
    for process in keepalived.values():
        running.stop(process)


def vrrp(running, process):
    """What keepalived said of the script `tidegate_ready` last."""
    said = re.findall(r"Script `tidegate_ready` now returning (\d)", running.said(process))
    return "ready: fail" if said and said[-1] != "0" else "ready: ok"


def anycast(running, hosts):
    one, two = hosts["one"], hosts["two"]
    (FOLDER / "bird-router.conf").write_text(ROUTER)
    running.start(*within("router", "bird", "-f", "-c", FOLDER / "bird-router.conf", "-s", FOLDER / "bird-router.ctl"))
    second = frr if shutil.which("vtysh") else bird
    announcing = {"one": bird(running, "one", "10.1.1.2"), "two": second(running, "two", "10.1.1.3")}
    print(f"routing: {ANYCAST} is announced by BIRD on the first host, by {'FRR' if second is frr else 'BIRD'} on the second")
    eventually("the router knows two ways of the same length", lambda: routes() == {"one": 1, "two": 1})
    eventually("and sends queries there", lambda: answered(ANYCAST))

    with Client(ANYCAST, "tidegate of the first host is killed"):
        one.kill()
        eventually("its route is withdrawn", lambda: routes() == {"two": 1})
    with Client(ANYCAST, "it is started again"):
        one.start()
        eventually("its route is back", lambda: routes() == {"one": 1, "two": 1})
    # A host that was started again has an empty cache, and nothing to answer from in an outage.
    eventually("it knows the name again", lambda: sh(f"ip netns exec one {FOLDER}/bin/tidegate query {NAME} @127.0.0.1"))
    with Client(ANYCAST, "the first host loses its way to the VPC"):
        one.link("cut")
        eventually("its route is a last resort", lambda: routes() == {"one": 4, "two": 1})
    with Client(ANYCAST, "the second host loses it, too"):
        two.link("cut")
        eventually("both routes are last resorts", lambda: routes() == {"one": 4, "two": 4})
        eventually("stale answers go on", lambda: answered(ANYCAST))
    with Client(ANYCAST, "both get it back"):
        one.link("mend")
        two.link("mend")
        eventually("the routes are plain again", lambda: routes() == {"one": 1, "two": 1})
    with Client(ANYCAST, "the announcement of the first host is stopped"):
        announcing["one"].send_signal(signal.SIGTERM)
        eventually("its route is withdrawn", lambda: routes() == {"two": 1})


def bird(running, name, address):
    """BIRD with the shipped file on a host, and what tells it."""
    shipped = (ROOT / "deploy/anycast/bird.conf").read_text().replace("log syslog all;", "log stderr all;")
    shipped = shipped.replace("protocol bgp site_router {", "protocol bgp site_router {\n    connect retry time 1;")
    (FOLDER / f"bird-{name}.conf").write_text(shipped.replace("10.1.1.2", address))
    socket = FOLDER / f"bird-{name}.ctl"
    running.start(*within(name, "bird", "-f", "-c", FOLDER / f"bird-{name}.conf", "-s", socket))
    return announce(running, name, "bird", f'/usr/sbin/birdc -s {socket}')


def frr(running, name, address):
    """FRR with the shipped file on a host, and what tells it."""
    folder = FOLDER / f"frr-{name}"
    folder.mkdir()
    (folder / "frr.conf").write_text((ROOT / "deploy/anycast/frr.conf").read_text().replace("10.1.1.2", address))
    (folder / "zebra.conf").write_text("")
    # Debian's FRR gives up root, and then makes its sockets here.
    shutil.chown(folder, "frr", "frr")
    common = ("--vty_socket", folder, "-P", "0", "-z", folder / "zserv.api", "--log", "stdout")
    for daemon, file, more in (("zebra", "zebra.conf", ()), ("bgpd", "frr.conf", ("-n",))):
        pid = ("-i", folder / f"{daemon}.pid")
        running.start(*within(name, f"/usr/lib/frr/{daemon}", "-f", folder / file, *pid, *common, *more))
        eventually(f"{daemon} can be told", lambda: (folder / f"{daemon}.vty").exists())
    return announce(running, name, "frr", f"/usr/bin/vtysh --vty_socket {folder}", TIDEGATE_ASN="65010")


def announce(running, name, daemon, client, **environment):
    """tidegate-announce on a host, where the daemon's client is this one."""
    script = FOLDER / name / pathlib.Path(client.split()[0]).name
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nexec {client} "$@"\n')
    script.chmod(0o755)
    given = [f"{key}={value}" for key, value in environment.items()]
    path = f"PATH={FOLDER}/bin:{script.parent}:/usr/bin:/bin:/usr/sbin:/sbin"
    return running.start(*within(name, "env", path, *given, FOLDER / "bin/tidegate-announce", daemon, ANYCAST, "vpc"))


def routes():
    """The length of the AS path by each neighbour that announces the address to the router."""
    said = sh(f"birdc -s {FOLDER}/bird-router.ctl show route all for {ANYCAST}/32 || true")
    found = {}
    for part in re.split(r"(?=\[(?:one|two) )", said)[1:]:
        path = re.search(r"BGP\.as_path: ([\d ]+)", part)
        found[part[1:4]] = len(path[1].split()) if path else 0
    return found


class Client:
    """Asks twenty times a second while something happens, and prints what came of it."""

    def __init__(self, server, scene):
        self.server, self.scene = server, scene
        self.lost = self.sent = self.most_retries = 0
        self.stop = threading.Event()
        self.waiting = []

    def __enter__(self):
        self.since = time.monotonic()
        self.thread = threading.Thread(target=self.ask)
        self.thread.start()
        return self

    def ask(self):
        while not self.stop.wait(0.05):
            self.sent += 1
            since = time.monotonic()
            if not answered(self.server, timeout=0.5):
                self.lost += 1
                waiting = threading.Thread(target=self.ask_again, args=(since,))
                waiting.start()
                self.waiting.append(waiting)

    def ask_again(self, since):
        """What a stub resolver does, 5 s after the query that was lost and each one after it."""
        for retry in range(1, 5):
            time.sleep(max(0, since + 5 * retry - time.monotonic()))
            self.most_retries = max(self.most_retries, retry)
            if answered(self.server, timeout=4):
                return

    def __exit__(self, kind, error, trace):
        moved = time.monotonic() - self.since
        self.stop.set()
        self.thread.join()
        for waiting in self.waiting:
            waiting.join()
        print(f"routing: {self.server}: {self.scene}: {moved:.1f} s; {self.lost} of {self.sent} queries lost, "
              f"at most {self.most_retries} retries", flush=True)


def answered(server, timeout=1.0):
    return ask(server, NAME, timeout=timeout) == (0, ["10.20.1.21"])


def within(name, *words):
    return ["ip", "netns", "exec", name, *words]


def sh(script):
    return subprocess.run(["sh", "-euc", script], check=True, capture_output=True, text=True).stdout


if __name__ == "__main__":
    main()
