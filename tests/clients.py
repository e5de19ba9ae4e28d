#!/usr/bin/env python3
"""Clients that others wrote, against the encrypted listeners: each must resolve, and by the transport it is told to use.

    tests/clients.py TARGET/debug/tidegate [CLIENT…]

kdig, curl, stubby and Chromium come from Debian; systemd-resolved too, whose package is unpacked into TARGET and not
installed, as it would change the resolver of this host; dnspython and aioquic from PyPI, in a virtual environment in TARGET.
All run in namespaces of their own, which needs root. A client that is not to be had is skipped, or a failure where CI is set.
"""

import base64
import contextlib
import hashlib
import http.server
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import urllib.request

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent / "deploy")]

from support import INSIDE, Running, ask, eventually, inside_namespaces, with_packages, workplace  # noqa: E402

TARGET = pathlib.Path(sys.argv[1]).resolve().parent.parent
NAME, ADDRESS = "dns.corp.example", "127.0.0.1"
# A name of the local zone, and its address, where a web server of this script is.
WWW, WEB, HTTP = "www.site.example", "127.0.0.7", 8080
PORTS = {"tls": 853, "https": 443, "quic": 8853}
RESOLVED = TARGET / "systemd-resolved"
PACKAGES = ("dnspython[doh,doq]==2.9.2",)

CONFIGURATION = """
[server]
listen = ["127.0.0.1:53"]
[server.tls]
tls = ["127.0.0.1:{tls}"]
https = ["127.0.0.1:{https}"]
quic = ["127.0.0.1:{quic}"]
certificate = "{folder}/chain.pem"
key = "{folder}/key.pem"
[admin]
http = "127.0.0.1:9153"
socket = ""
[upstream.site]
servers = ["192.0.2.1"]
[[forward]]
zones = ["elsewhere.example"]
to = "site"
[[local]]
zone = "site.example"
records = ["www 300 A 127.0.0.7"]
"""


class Missing(Exception):
    """The client is not to be had here."""


def main():
    if not os.environ.get(INSIDE):
        unpack_resolved()
    with_packages(TARGET / "clients", *PACKAGES)
    inside_namespaces()
    failed = 0
    with workplace() as folder, Running() as running, web_server():
        certify(folder)
        (folder / "tidegate.toml").write_text(CONFIGURATION.format(folder=folder, **PORTS))
        running.start(sys.argv[1], "serve", "--config", folder / "tidegate.toml")
        eventually("tidegate answers", lambda: ask(ADDRESS, WWW) == (0, [WEB]))
        for name in sys.argv[2:] or CLIENTS:
            transports, client = CLIENTS[name]
            before = {transport: queries(transport) for transport in transports}
            try:
                client(folder, running)
                for transport in transports:
                    assert queries(transport) > before[transport], f"no query came over {transport}"
                print(f"{name:<17} ok")
            except Missing as missing:
                failed += bool(os.environ.get("CI"))
                print(f"{name:<17} SKIPPED: {missing}")
            except Exception as error:
                failed += 1
                print(f"{name:<17} FAILED: {type(error).__name__}: {error}\n{getattr(error, 'stdout', '') or ''}")
            sys.stdout.flush()
    print("clients: FAILED" if failed else "clients: passed")
    sys.exit(1 if failed else 0)


def unpack_resolved():
    """Unpacks systemd-resolved, of the version of this host's systemd, whose library it needs."""
    program = RESOLVED / "lib/systemd/systemd-resolved"
    if program.exists() or not shutil.which("apt-get"):
        return
    RESOLVED.mkdir(parents=True, exist_ok=True)
    download = ["apt-get", "-qq", "download", "systemd-resolved"]
    if subprocess.run(download, cwd=RESOLVED, capture_output=True).returncode != 0:
        # There may be no list of packages yet.
        subprocess.run(["apt-get", "-qq", "update"], capture_output=True)
        subprocess.run(download, cwd=RESOLVED, capture_output=True)
    for package in RESOLVED.glob("*.deb"):
        subprocess.run(["dpkg", "-x", package, RESOLVED], check=True)


def certify(folder):
    """A CA, and a certificate of it for the listeners."""

    def openssl(*words):
        subprocess.run(["openssl", *map(str, words)], check=True, capture_output=True)

    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    openssl("req", "-x509", *key, "-days", 2, "-subj", "/CN=The site's CA", "-keyout", folder / "ca.key", "-out", folder / "ca.pem")
    openssl("req", *key, "-subj", f"/CN={NAME}", "-keyout", folder / "key.pem", "-out", folder / "request.pem")
    (folder / "names").write_text(f"subjectAltName=DNS:{NAME},IP:{ADDRESS}\n")
    signer = ["-CA", folder / "ca.pem", "-CAkey", folder / "ca.key", "-CAcreateserial"]
    openssl("x509", "-req", "-in", folder / "request.pem", *signer, "-days", 2, "-extfile", folder / "names", "-out", folder / "chain.pem")


@contextlib.contextmanager
def web_server():
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<p>reached by name</p>")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer((WEB, HTTP), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield
    server.shutdown()


def queries(transport):
    with urllib.request.urlopen("http://127.0.0.1:9153/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    counted = f'tidegate_queries_total{{transport="{transport}"'
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(counted))


def program(name, package):
    if not shutil.which(name):
        raise Missing(f"Debian package {package}")
    return name


def said(*words, **more):
    ran = subprocess.run([str(word) for word in words], capture_output=True, text=True, timeout=120, **more)
    return ran.stdout + ran.stderr


def kdig(folder, running):
    for transport, option in (("tls", "+tls"), ("https", f"+https={NAME}/dns-query"), ("quic", "+quic")):
        words = [f"@{ADDRESS}", "-p", PORTS[transport], f"+tls-ca={folder / 'ca.pem'}", f"+tls-hostname={NAME}", option]
        answer = said(program("kdig", "knot-dnsutils"), *words, WWW, "+short")
        assert WEB in answer, f"{transport}: {answer}"


def curl(folder, running):
    words = ["--silent", "--show-error", "--max-time", 20, "--cacert", folder / "ca.pem", "--resolve", f"{NAME}:443:{ADDRESS}"]
    page = said(program("curl", "curl"), *words, "--doh-url", f"https://{NAME}/dns-query", f"http://{WWW}:{HTTP}/")
    assert "reached by name" in page, page


def dnspython(folder, running):
    import dns.message
    import dns.query

    query = dns.message.make_query(WWW, "A", use_edns=0)
    http = {"bootstrap_address": ADDRESS, "http_version": dns.query.HTTPVersion.H2}
    trust = {"verify": str(folder / "ca.pem"), "timeout": 20}
    answers = {
        "tls": dns.query.tls(query, ADDRESS, port=PORTS["tls"], server_hostname=NAME, **trust),
        "https": dns.query.https(query, f"https://{NAME}/dns-query", **http, **trust),
        "https by GET": dns.query.https(query, f"https://{NAME}/dns-query", post=False, **http, **trust),
        "quic": dns.query.quic(query, ADDRESS, port=PORTS["quic"], server_hostname=NAME, **trust),
    }
    for transport, answer in answers.items():
        assert WEB in str(answer.answer), f"{transport}: {answer}"


def chromium(folder, running):
    """The resolver of a browser engine, by policy as an administrator sets it; there is no other DNS in this namespace."""
    browser = program("chromium", "chromium")
    policies = pathlib.Path("/etc/chromium/policies")
    policies.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "policies", policies], check=True)
    (policies / "managed").mkdir()
    template = f"https://{ADDRESS}/dns-query{{?dns}}"
    (policies / "managed/doh.json").write_text(
        f'{{"DnsOverHttpsMode": "secure", "DnsOverHttpsTemplates": "{template}", "BuiltInDnsClientEnabled": true}}'
    )
    public = subprocess.run(["openssl", "x509", "-in", folder / "chain.pem", "-noout", "-pubkey"], check=True, capture_output=True)
    der = subprocess.run(["openssl", "pkey", "-pubin", "-outform", "der"], input=public.stdout, check=True, capture_output=True)
    pin = base64.b64encode(hashlib.sha256(der.stdout).digest()).decode()
    words = ["--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder / 'chromium'}",
             f"--ignore-certificate-errors-spki-list={pin}", "--virtual-time-budget=30000", "--dump-dom"]
    page = said(browser, *words, f"http://{WWW}:{HTTP}/", env={**os.environ, "HOME": str(folder)})
    subprocess.run(["umount", policies], check=True)
    assert "reached by name" in page, page[-2000:]


def stubby(folder, running):
    (folder / "stubby.yml").write_text(f"""
resolution_type: GETDNS_RESOLUTION_STUB
dns_transport_list: [GETDNS_TRANSPORT_TLS]
tls_authentication: GETDNS_AUTHENTICATION_REQUIRED
tls_ca_file: "{folder / 'ca.pem'}"
listen_addresses: [127.0.0.2@5300]
upstream_recursive_servers:
  - address_data: {ADDRESS}
    tls_port: {PORTS["tls"]}
    tls_auth_name: "{NAME}"
""")
    process = running.start(program("stubby", "stubby"), "-C", folder / "stubby.yml")
    try:
        eventually("stubby resolves", lambda: ask("127.0.0.2", WWW, port=5300) == (0, [WEB]))
    finally:
        running.stop(process)


def resolved(folder, running):
    binary = RESOLVED / "lib/systemd/systemd-resolved"
    if not binary.exists():
        raise Missing("Debian package systemd-resolved")
    # Everything that it would find of this host is replaced, in this mount namespace alone.
    for place in ("/etc/systemd", "/run/systemd", "/run/dbus"):
        pathlib.Path(place).mkdir(parents=True, exist_ok=True)
        subprocess.run(["mount", "-t", "tmpfs", "resolved", place], check=True)
    for file in ("passwd", "group"):
        entry = "systemd-resolve:x:990:990::/:/usr/sbin/nologin\n" if file == "passwd" else "systemd-resolve:x:990:\n"
        (folder / file).write_text(pathlib.Path(f"/etc/{file}").read_text() + entry)
        subprocess.run(["mount", "--bind", folder / file, f"/etc/{file}"], check=True)
    pathlib.Path("/run/systemd/resolve").mkdir()
    os.chown("/run/systemd/resolve", 990, 990)
    pathlib.Path("/etc/systemd/resolved.conf").write_text(
        f"[Resolve]\nDNS={ADDRESS}:{PORTS['tls']}#{NAME}\nDNSOverTLS=yes\nDNSSEC=no\nDomains=~.\nLLMNR=no\nMulticastDNS=no\n"
    )
    # Without a link that leads somewhere it asks nobody.
    link = ("link add away type veth peer name far", "address add 198.51.100.1/24 dev away", "link set away up", "link set far up")
    for words in link:
        subprocess.run(["ip", *words.split()], check=True)
    # It trusts the CAs of OpenSSL's folder.
    environment = {**os.environ, "SSL_CERT_FILE": str(folder / "ca.pem")}
    process = running.start(binary, env=environment)
    try:
        eventually("systemd-resolved resolves", lambda: ask("127.0.0.53", WWW) == (0, [WEB]), patience=30)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{running.said(process)[-2000:]}") from error
    finally:
        running.stop(process)


CLIENTS = {
    "kdig": (("tls", "https", "quic"), kdig),
    "curl": (("https",), curl),
    "dnspython": (("tls", "https", "quic"), dnspython),
    "stubby": (("tls",), stubby),
    "systemd-resolved": (("tls",), resolved),
    "chromium": (("https",), chromium),
}


if __name__ == "__main__":
    main()
