"""The site of `run`: its network, its servers, and what a scene does with them."""

import json
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time

from support import eventually

HERE = pathlib.Path(__file__).resolve().parent
IRELAND, FRANKFURT = "eu-west-1", "eu-central-1"
SERVICES = ("s3", "sts", "monitoring")
# Interface endpoints of each Region, and what its names are on the internet.
ENDPOINT = {IRELAND: "10.20.1.21", FRANKFURT: "10.40.1.21"}
PUBLIC = "203.0.113.80"
PUBLIC_DNS = "198.51.100.53"
# A private hosted zone that both VPCs are associated with.
ZONE, IN_ZONE = "app.internal", "10.20.1.80"
HOSTS = {"dns1": "10.1.0.2", "dns2": "10.1.0.3"}


def name(service, region):
    return f"{service}.{region}.amazonaws.com"


S3, STS = name("s3", IRELAND), name("sts", IRELAND)

NETWORK = f"""
    mkdir -p /run/netns && mount -t tmpfs tmpfs /run/netns
    ip link add lan type bridge && ip link set lan up
    for host in gw:1 dns1:2 dns2:3 client:10; do
        name=${{host%:*}} number=${{host#*:}}
        ip netns add $name
        ip link add lan-$name type veth peer name eth0 netns $name
        ip link set lan-$name master lan up
        ip -n $name link set lo up
        ip -n $name link set eth0 up
        ip -n $name address add 10.1.0.$number/24 dev eth0
        [ $name = gw ] || ip -n $name route add default via 10.1.0.1
    done
    for name in vpc frankfurt; do ip netns add $name && ip -n $name link set lo up; done
    ip -n gw link add dx type veth peer name dx netns vpc
    ip -n gw link add vpn type veth peer name vpn netns vpc
    ip -n gw address add 172.16.1.1/30 dev dx && ip -n vpc address add 172.16.1.2/30 dev dx
    ip -n gw address add 172.16.2.1/30 dev vpn && ip -n vpc address add 172.16.2.2/30 dev vpn
    for name in gw vpc; do
        ip -n $name link set dx up mtu 1500
        ip -n $name link set vpn up mtu 1400
        ip netns exec $name sysctl -qw net.ipv4.ip_forward=1
    done
    ip -n gw link add dx2 type veth peer name dx netns frankfurt
    ip -n gw address add 172.16.3.1/30 dev dx2 && ip -n frankfurt address add 172.16.3.2/30 dev dx
    ip -n gw link set dx2 up && ip -n frankfurt link set dx up
    ip -n gw route add 10.40.0.0/16 via 172.16.3.2 && ip -n frankfurt route add default via 172.16.3.1
    for address in 10.20.1.10 10.20.2.10 {ENDPOINT[IRELAND]}; do ip -n vpc address add $address/32 dev lo; done
    for address in 10.40.1.10 10.40.2.10 {ENDPOINT[FRANKFURT]}; do ip -n frankfurt address add $address/32 dev lo; done
    ip -n gw address add 10.1.0.53/24 dev eth0
    ip -n gw address add {PUBLIC_DNS}/32 dev lo
    # What the internet would be: whoever sends to a public address of AWS is counted, and gets no answer.
    ip -n gw route add blackhole 203.0.113.0/24
    ip netns exec gw nft -f - <<END
    table ip site {{
        counter public {{ }}
        chain before {{ type filter hook prerouting priority 0; ip daddr 203.0.113.0/24 counter name public; }}
        chain after {{ type nat hook postrouting priority 100; oifname "vpn" masquerade; }}
    }}
END
    # Of which source address the queries that reach the VPC are.
    ip netns exec vpc nft -f - <<END
    table ip site {{
        counter vpn {{ }}
        chain before {{ type filter hook prerouting priority 0; iifname "vpn" ip saddr 172.16.2.1 udp dport 53 counter name vpn; }}
    }}
END
"""

TIDEGATE_FILE = """
[server]
listen = ["{address}:53", "127.0.0.1:53"]
[admin]
socket = "{folder}/{name}.sock"
[perimeter]
record = "{folder}/{name}-record"
[upstream.vpc]
servers = ["10.20.1.10", "10.20.2.10"]
[upstream.frankfurt]
servers = ["10.40.1.10", "10.40.2.10"]
[upstream.zone]
servers = ["10.20.1.10", "10.20.2.10"]
backup = [["10.40.1.10", "10.40.2.10"]]
[upstream.site]
servers = ["10.1.0.53"]
[[forward]]
name = "aws"
zones = ["preset:aws", "reverse:10.20.0.0/16"]
to = "vpc"
private = ["10.20.0.0/16"]
on_public = "{on_public}"
[[forward]]
name = "frankfurt"
zones = ["eu-central-1.amazonaws.com", "reverse:10.40.0.0/16"]
to = "frankfurt"
private = ["10.40.0.0/16"]
on_public = "{on_public}"
[[forward]]
name = "zone"
zones = ["app.internal"]
to = "zone"
private = ["10.20.0.0/16", "10.40.0.0/16"]
on_public = "{on_public}"
[[forward]]
name = "site"
zones = [".", "reverse:private"]
to = "site"
"""

UNBOUND = """
server:
{interfaces}
  access-control: 0.0.0.0/0 allow
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{folder}"
  use-syslog: no
{zones}
"""



class Site:
    def __init__(self, tidegate, folder, running):
        self.program, self.folder, self.running = tidegate, folder, running
        sh(NETWORK)
        for path in ("dx", "vpn"):
            self.routes(path)
        certificates(folder)
        self.processes = {}
        self.vpc_answers()
        # A VPC without endpoints for a Region gets the public addresses of that Region's services, as everybody does.
        other = redirect_services(IRELAND, PUBLIC) + redirect_services(FRANKFURT, ENDPOINT[FRANKFURT])
        self.unbound("frankfurt", ["10.40.1.10", "10.40.2.10"], other + hosted_zone() + reverse(FRANKFURT))
        public = redirect_services(IRELAND, PUBLIC) + redirect_services(FRANKFURT, PUBLIC)
        self.unbound("gw", ["10.1.0.53", PUBLIC_DNS], public + redirect("corp.example", "10.1.0.80"))
        moto = pathlib.Path(sys.executable).with_name("moto_server")
        certificate = ("-c", folder / "cert.pem", "-k", folder / "key.pem")
        for place, region in {"vpc": IRELAND, "frankfurt": FRANKFURT}.items():
            running.start(*within(place, moto, "-H", ENDPOINT[region], "-p", "443", *certificate))
        for host, address in HOSTS.items():
            self.write(host, "refuse")
            self.start(host)
            eventually(f"{host} answers", lambda: self.asked(address, S3) == (0, [ENDPOINT[IRELAND]]))
        self.resolv_conf(*HOSTS.values())
        for place in ("vpc", "frankfurt"):
            eventually("moto listens", lambda: "LISTEN" in sh(f"ip netns exec {place} ss -Htln sport = :443"))

    def routes(self, path):
        """A link that is up has its routes, Direct Connect before the VPN."""
        metric, near, far = {"dx": (10, "172.16.1.1", "172.16.1.2"), "vpn": (20, "172.16.2.1", "172.16.2.2")}[path]
        sh(f"ip -n gw route replace 10.20.0.0/16 via {far} metric {metric}")
        sh(f"ip -n vpc route replace default via {near} metric {metric}")

    def link(self, path, state):
        sh(f"ip -n gw link set {path} {state} && ip -n vpc link set {path} {state}")
        if state == "up":
            self.routes(path)

    def unbound(self, place, addresses, zones):
        if place in self.processes:
            self.running.stop(self.processes[place])
        interfaces = "\n".join(f"  interface: {address}" for address in addresses)
        file = self.folder / f"unbound-{place}.conf"
        file.write_text(UNBOUND.format(interfaces=interfaces, folder=self.folder, zones=zones))
        self.processes[place] = self.running.start(*within(place, "unbound", "-d", "-c", file))

    def vpc_answers(self, sts=ENDPOINT[IRELAND]):
        """What the inbound endpoint of Ireland says, with this address for STS."""
        zones = redirect_services(IRELAND, ENDPOINT[IRELAND], sts=sts) + redirect_services(FRANKFURT, PUBLIC)
        self.unbound("vpc", ["10.20.1.10", "10.20.2.10"], zones + hosted_zone() + reverse(IRELAND))
        if self.processes.get("dns1"):
            eventually("the endpoint answers", lambda: self.asked("10.20.1.10", STS) == (0, [sts]))
            for host in HOSTS:
                self.tidegate(host, "flush", "--all")

    def file(self, host):
        return self.folder / f"{host}.toml"

    def write(self, host, on_public):
        text = TIDEGATE_FILE.format(address=HOSTS[host], folder=self.folder, name=host, on_public=on_public)
        self.file(host).write_text(text)

    def configure(self, on_public):
        for host in HOSTS:
            self.write(host, on_public)
            self.tidegate(host, "reload")

    def start(self, host):
        self.processes[host] = self.running.start(*within(host, self.program, "serve", "--config", self.file(host)))

    def kill(self, host):
        self.running.stop(self.processes[host], signal.SIGKILL)

    def tidegate(self, host, verb, *words, code=0):
        """What a verb prints on a host that runs tidegate. `code`: how it has to end, None for any way."""
        command = texts(within(host, self.program, verb, "--config", self.file(host), *words))
        done = subprocess.run(command, capture_output=True, text=True)
        assert code is None or done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def doctor(self, host):
        """The findings of `tidegate doctor`."""
        return json.loads(self.tidegate(host, "doctor", "--json", code=None))["findings"]

    def evidence(self, host, name):
        """What the record on disk has about a name today."""
        self.processes[host].send_signal(signal.SIGUSR1)
        today = time.strftime("%F", time.gmtime())
        report = json.loads(self.tidegate(host, "perimeter", "--from", today, "--json", code=None))
        return next((found for found in report["names"] if found["name"].rstrip(".") == name), None)

    def page(self, host, path, *options):
        return sh(f"ip netns exec {host} curl -s {' '.join(options)} 'http://127.0.0.1:9153{path}'")

    def readyz(self, host, group):
        return int(self.page(host, f"/readyz?group={group}", "-o /dev/null", "-w '%{http_code}'"))

    def tier(self, host, group):
        """The tier of a group that is in use."""
        return int(re.search(rf'^tidegate_upstream_tier{{group="{group}"}} (\d+)', self.page(host, "/metrics"), re.MULTILINE)[1])

    def resolv_conf(self, *servers):
        """The client's, and that of all programs here: nobody else reads it."""
        file = self.folder / "resolv.conf"
        is_new = not file.exists()
        # In place, since the file is mounted.
        file.write_text("".join(f"nameserver {server}\n" for server in servers) + "options timeout:1\n")
        if is_new:
            sh(f"mount --bind {file} /etc/resolv.conf")

    def asked(self, server, name):
        """As `ask`, from the client's network."""
        code = f"import sys; sys.path.insert(0, {str(HERE.parent / 'deploy')!r}); import support; print(repr(support.ask({server!r}, {name!r})))"
        return eval(sh(f"ip netns exec client {sys.executable} -c \"{code}\""), {})

    def resolve(self, name):
        """The IPv4 addresses that a program gets from glibc."""
        done = subprocess.run(within("client", "getent", "ahostsv4", name), capture_output=True, text=True)
        return sorted({line.split()[0] for line in done.stdout.splitlines()})

    def reverse(self, address):
        return sh(f"ip netns exec client getent hosts {address}").split()[1]

    def environment(self, region):
        return {
            "PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": str(self.folder), "AWS_CA_BUNDLE": str(self.folder / "ca.pem"),
            "AWS_ACCESS_KEY_ID": "none", "AWS_SECRET_ACCESS_KEY": "none", "AWS_DEFAULT_REGION": region, "AWS_PAGER": "",
            "AWS_EC2_METADATA_DISABLED": "true", "AWS_REGION": region, "NODE_EXTRA_CA_CERTS": str(self.folder / "ca.pem"),
        }

    def run(self, *words, fails=False, region=IRELAND):
        """A program of the client's, with what an application is told."""
        command = texts(within("client", *words))
        done = subprocess.run(command, env=self.environment(region), capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stderr
        return done

    def client(self, what, region=IRELAND):
        return json.loads(self.run(sys.executable, HERE / "client.py", what, region=region).stdout)

    def loop(self, *what, region=IRELAND):
        """A loop of the client's that runs, and has had its first turn."""
        command = texts(within("client", sys.executable, HERE / "client.py", *what))
        loop = Loop(command, self.environment(region))
        loop.turn(1)
        return loop

    def aws(self, *words, fails=False):
        done = self.run(sys.executable, "-m", "awscli", *words, fails=fails)
        return done.stderr if fails else done.stdout

    def to_the_internet(self):
        return self.packets("gw", "public")

    def packets(self, place, counter):
        listed = json.loads(sh(f"ip netns exec {place} nft -j list counter ip site {counter}"))
        return next(found["counter"]["packets"] for found in listed["nftables"] if "counter" in found)


class Loop:
    """A program that prints a line for each turn and, once its standard input is closed, its figures."""

    def __init__(self, command, environment):
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.lines = []
        self.reader = threading.Thread(target=lambda: self.lines.extend(self.process.stdout), daemon=True)
        self.reader.start()

    def turn(self, times):
        """Waits until it has gone round this many times more."""
        wanted = len(self.lines) + times
        eventually(f"{times} turns of a loop", lambda: len(self.lines) >= wanted or self.process.poll() is not None)

    def end(self):
        """Ends it; gives its figures."""
        self.process.stdin.close()
        self.reader.join(timeout=120)
        assert self.process.wait(timeout=120) == 0, self.process.stderr.read()
        return json.loads(self.lines[-1])


def redirect(name, address, ttl=5):
    """A name and all below it."""
    return f'  local-zone: "{name}." redirect\n  local-data: "{name}. {ttl} A {address}"\n'


def redirect_services(region, address, **others):
    return "".join(redirect(name(service, region), others.get(service, address)) for service in SERVICES)


def hosted_zone():
    return redirect(ZONE, IN_ZONE, ttl=1)


def reverse(region):
    address = ENDPOINT[region]
    network = ".".join(reversed(address.split(".")[:2]))
    return f'  local-zone: "{network}.in-addr.arpa." static\n  local-data-ptr: "{address} 5 endpoint.{region}.{ZONE}"\n'


def certificates(folder):
    """A CA, and one certificate for all services."""
    names = [name(service, region) for service in SERVICES for region in ENDPOINT]
    names += [f"*.{name('s3', region)}" for region in ENDPOINT]
    (folder / "names").write_text("subjectAltName=" + ",".join(f"DNS:{each}" for each in names))
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    sh(f"""cd {folder}
        openssl req -x509 {key} -days 3 -subj /CN=site -keyout ca.key -out ca.pem
        openssl req {key} -subj /CN=aws -keyout key.pem -out request.pem
        openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -days 3 -extfile names -out cert.pem""")


def within(name, *words):
    return ["ip", "netns", "exec", name, *words]


def texts(words):
    return [str(word) for word in words]


def sh(script):
    done = subprocess.run(["sh", "-euc", script], capture_output=True, text=True)
    assert done.returncode == 0, f"{script}: {done.stderr}"
    return done.stdout
