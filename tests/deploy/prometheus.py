#!/usr/bin/env python3
"""The alerts and the dashboard against promtool and a real Prometheus that scrapes a tidegate under load.

    tests/deploy/prometheus.py TARGET/debug/tidegate
    tests/deploy/prometheus.py TARGET/debug/tidegate --pictures FOLDER    # and the dashboard, plotted; needs matplotlib

Everything runs in network and mount namespaces of its own, which needs root. Needs prometheus, unbound and openssl.
"""

import json
import pathlib
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request

from support import ROOT, Running, ask, eventually, inside_namespaces, query_for, workplace

RULES = ROOT / "deploy/prometheus/tidegate.rules.yml"
DASHBOARD = ROOT / "deploy/grafana/tidegate.json"
METRIC = re.compile(r"\b(?:tidegate|process)_[a-z0-9_]+")

UNBOUND = """
server:
  interface: 127.0.0.2
  access-control: 127.0.0.0/8 allow
  username: ""
  chroot: ""
  pidfile: ""
  directory: "{folder}"
  use-syslog: no
  local-zone: "amazonaws.com." redirect
  local-data: "amazonaws.com. 1 A 10.20.1.21"
  local-zone: "sts.eu-west-1.amazonaws.com." redirect
  local-data: "sts.eu-west-1.amazonaws.com. 1 A 203.0.113.80"
"""

TIDEGATE = """
[server]
listen = ["127.0.0.1:53"]
[server.tls]
tls = ["127.0.0.1:853"]
certificate = "{folder}/cert.pem"
key = "{folder}/key.pem"
[admin]
socket = "{folder}/control.sock"
[cache]
snapshot = "{folder}/cache"
[upstream.vpc]
servers = ["127.0.0.2", "127.0.0.3"]
[[forward]]
name = "aws"
zones = ["preset:aws"]
to = "vpc"
private = ["10.20.0.0/16"]
on_public = "refuse"
"""

PROMETHEUS = """
global: {{ scrape_interval: 1s, evaluation_interval: 1s }}
rule_files: ["{rules}"]
scrape_configs:
  - job_name: tidegate
    static_configs: [{{ targets: ["127.0.0.1:9153"] }}]
"""


def main():
    promtool("check", "rules", RULES)
    promtool("test", "rules", ROOT / "deploy/prometheus/tests.yml")
    inside_namespaces()
    tidegate = pathlib.Path(sys.argv[1]).resolve()
    with workplace() as folder, Running() as running:
        write = lambda name, text: (folder / name).write_text(text.format(folder=folder, rules=RULES))
        write("unbound.conf", UNBOUND)
        write("tidegate.toml", TIDEGATE)
        write("prometheus.yml", PROMETHEUS)
        certificate(folder)
        promtool("check", "config", folder / "prometheus.yml")
        unbound = running.start("unbound", "-d", "-c", folder / "unbound.conf")
        running.start(tidegate, "serve", "--config", folder / "tidegate.toml")
        running.start(
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus",
            "--web.listen-address=127.0.0.1:9090",
        )
        eventually("tidegate answers", lambda: ask("127.0.0.1", "warm.s3.eu-west-1.amazonaws.com"))
        stop = threading.Event()
        load = threading.Thread(target=keep_asking, args=(stop,))
        load.start()
        begin = time.time()
        try:
            check_names()
            check_panels()
            check_alerts()
            check_units()
            draw(begin, "well")
            running.stop(unbound)
            check_outage()
            draw(begin, "outage")
        finally:
            stop.set()
            load.join()
    print("prometheus: passed")


def promtool(*words):
    subprocess.run(["promtool", *words], check=True, stdout=subprocess.DEVNULL)


def certificate(folder):
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3",
         "-subj", "/CN=dns.corp.example", "-addext", "subjectAltName=DNS:dns.corp.example",
         "-keyout", folder / "key.pem", "-out", folder / "cert.pem"],
        check=True, capture_output=True,
    )


def keep_asking(stop):
    """Hits, misses and names that the guard refuses, some twenty a second, every other one over TCP, until told to stop."""
    number = 0
    with socket.create_connection(("127.0.0.1", 53), timeout=5) as stream:
        while not stop.wait(0.05):
            number += 1
            often = ["s3.eu-west-1.amazonaws.com", f"b{number}.s3.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"]
            name = often[number % 3]
            if number % 2:
                ask("127.0.0.1", name, edns=True)
                continue
            query = query_for(name)
            stream.sendall(struct.pack("!H", len(query)) + query)
            length = struct.unpack("!H", stream.recv(2, socket.MSG_WAITALL))[0]
            stream.recv(length, socket.MSG_WAITALL)


def check_names():
    """Every metric that an alert or a panel names is one that tidegate exports."""
    page = urllib.request.urlopen("http://127.0.0.1:9153/metrics").read().decode()
    exported = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    exported |= {name + part for name in exported for part in ("_bucket", "_sum", "_count")}
    for file in (RULES, DASHBOARD):
        unknown = set(METRIC.findall(file.read_text())) - exported
        assert not unknown, f"{file.name} names metrics that tidegate does not export: {sorted(unknown)}"


def panels():
    """The panels, the variables of their queries filled in."""
    text = DASHBOARD.read_text()
    for variable, value in {"$job": "tidegate", "$instance": ".*", "$__rate_interval": "10s"}.items():
        text = text.replace(variable, value)
    return json.loads(text)["panels"]


def expressions(title=None):
    found = [(panel["title"], target["expr"]) for panel in panels() for target in panel.get("targets", [])]
    return [(of, expression) for of, expression in found if title in (None, of)]


def check_panels():
    assert len(expressions()) > 30
    for title, expression in expressions():
        eventually(f"panel {title!r} shows something: {expression}", lambda: numbers(expression))


def check_units():
    """Every panel names the unit that the metrics of its queries have."""
    for panel in panels():
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit")
        for target in panel.get("targets", []):
            names = set(METRIC.findall(target["expr"]))
            wrong = [name for name in names if "_seconds" in name and "_bucket" in name and unit != "s"]
            wrong += [name for name in names if name.endswith("_bytes") and unit != "bytes"]
            rated = "rate(" in target["expr"] and " / " not in target["expr"] and "quantile" not in target["expr"]
            if rated and unit not in ("reqps", "ops") and "pauses/s" not in target.get("legendFormat", ""):
                wrong += [name for name in names if (name, unit) != ("process_cpu_seconds_total", "percentunit")]
            assert not wrong, f"panel {panel['title']!r} shows {wrong} in the unit {unit}"


def check_outage():
    """The panels that say nothing on a good day say what is wrong on a bad one."""
    shows = {
        "Groups without a usable server": lambda value: value == 1,
        "Servers down": lambda value: value == 2,
        "SERVFAIL share": lambda value: value > 0.05,
        "Usable servers": lambda value: value == 0,
        "Servers going down": lambda value: value > 0,
        "Queries upstream that failed": lambda value: value > 0,
        "Extended errors": lambda value: value > 0,
        "Responses by RCODE": lambda value: value > 0,
    }
    for title, is_shown in shows.items():
        values = lambda: [float(found["value"][1]) for _, expression in expressions(title) for found in numbers(expression)]
        eventually(f"panel {title!r} shows the outage", lambda: any(is_shown(value) for value in values()))
    eventually("the alert for the group is raised", lambda: "TidegateGroupDown" in alerts("firing|pending"))


def draw(begin, scene):
    if "--pictures" not in sys.argv:
        return
    import pictures

    time.sleep(60)
    folder = pathlib.Path(sys.argv[sys.argv.index("--pictures") + 1])
    pictures.draw(panels(), query, query_range, begin, folder / f"dashboard-{scene}.png")


def check_alerts():
    """The dead server and the refused name raise their alerts; nothing is raised for what is well."""
    eventually("the alert for public answers fires", lambda: "TidegateGuardViolation" in alerts("firing"))
    eventually("the alert for the dead server is pending", lambda: "TidegateServerDown" in alerts("pending"))
    well = {"TidegateDown", "TidegateGroupDown", "TidegateReloadFailed", "TidegateLogDropped", "TidegatePerimeterLeak"}
    assert not well & alerts("firing|pending"), alerts("firing|pending")
    # The certificate of this test is good for three days.
    assert "TidegateCertificateExpiry" in alerts("firing|pending")


def alerts(state):
    return {found["metric"]["alertname"] for found in query(f'ALERTS{{alertstate=~"{state}"}}')}


def numbers(expression):
    return [found for found in query(expression) if found["value"][1] != "NaN"]


def query(expression):
    return fetch("query", query=expression)


def query_range(expression, begin, end):
    return fetch("query_range", query=expression, start=begin, end=end, step=2)


def fetch(page, **words):
    address = f"http://127.0.0.1:9090/api/v1/{page}?{urllib.parse.urlencode(words)}"
    return json.load(urllib.request.urlopen(address))["data"]["result"]


if __name__ == "__main__":
    main()
