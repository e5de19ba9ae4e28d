#!/usr/bin/env python3
"""The alerts and the dashboard against promtool and a real Prometheus that scrapes a tidegate under load.

    tests/deploy/prometheus.py TARGET/debug/tidegate

Everything runs in network and mount namespaces of its own, which needs root. Needs prometheus, unbound and openssl.
"""

import json
import pathlib
import re
import subprocess
import sys
import threading
import urllib.parse
import urllib.request

from support import ROOT, Running, ask, eventually, inside_namespaces, workplace

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
        running.start("unbound", "-d", "-c", folder / "unbound.conf")
        running.start(tidegate, "serve", "--config", folder / "tidegate.toml")
        running.start(
            "prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/prometheus",
            "--web.listen-address=127.0.0.1:9090",
        )
        eventually("tidegate answers", lambda: ask("127.0.0.1", "warm.s3.eu-west-1.amazonaws.com"))
        stop = threading.Event()
        load = threading.Thread(target=keep_asking, args=(stop,))
        load.start()
        try:
            check_names()
            check_panels()
            check_alerts()
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
    """Hits, misses and names that the guard refuses, some twenty a second, until told to stop."""
    number = 0
    while not stop.wait(0.05):
        number += 1
        names = ["s3.eu-west-1.amazonaws.com", f"b{number}.s3.eu-west-1.amazonaws.com", "sts.eu-west-1.amazonaws.com"]
        ask("127.0.0.1", names[number % 3])


def check_names():
    """Every metric that an alert or a panel names is one that tidegate exports."""
    page = urllib.request.urlopen("http://127.0.0.1:9153/metrics").read().decode()
    exported = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    exported |= {name + part for name in exported for part in ("_bucket", "_sum", "_count")}
    for file in (RULES, DASHBOARD):
        unknown = set(METRIC.findall(file.read_text())) - exported
        assert not unknown, f"{file.name} names metrics that tidegate does not export: {sorted(unknown)}"


def check_panels():
    expressions = [
        (panel["title"], target["expr"])
        for panel in json.loads(DASHBOARD.read_text())["panels"]
        for target in panel.get("targets", [])
    ]
    assert len(expressions) > 30
    for title, expression in expressions:
        for variable, value in {"$job": "tidegate", "$instance": ".*", "$__rate_interval": "10s"}.items():
            expression = expression.replace(variable, value)
        eventually(f"panel {title!r} shows something: {expression}", lambda: numbers(expression))


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
    address = "http://127.0.0.1:9090/api/v1/query?" + urllib.parse.urlencode({"query": expression})
    return json.load(urllib.request.urlopen(address))["data"]["result"]


if __name__ == "__main__":
    main()
