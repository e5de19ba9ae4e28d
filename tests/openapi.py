#!/usr/bin/env python3
"""Holds a running daemon against `/api/v1/openapi.json`, by schemathesis.

    tests/openapi.py TARGET/debug/tidegate

Makes a virtual environment in TARGET, cargo's folder for what it builds, and installs schemathesis from PyPI there. Where
PyPI cannot be reached, says so and is content, except where CI is set.
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

TIDEGATE = pathlib.Path(sys.argv[1]).resolve()
VENV = TIDEGATE.parent.parent / "schemathesis"
PACKAGE = "schemathesis==4.32.5"

CONFIGURATION = """
[server]
listen = ["127.0.0.1:0"]
[admin]
http = "127.0.0.1:0"
socket = ""
[upstream.vpc]
servers = ["192.0.2.1"]
[[local]]
zone = "site.example"
records = ["www 300 A 10.0.0.1"]
[[forward]]
name = "aws"
zones = ["preset:aws"]
to = "vpc"
private = ["10.0.0.0/8"]
on_public = "refuse"
"""

# What the formats of the description stand for: OpenAPI has none for names of the DNS.
HOOKS = r"""
import schemathesis
from hypothesis import strategies as st

label = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9-]{0,20}\Z")
address = st.ip_addresses().map(str)
numbered = st.integers(0, 65535).map("TYPE{}".format)
schemathesis.openapi.format("dns-name", st.lists(label, min_size=1, max_size=6).map(".".join))
schemathesis.openapi.format("dns-type", st.sampled_from(["A", "AAAA", "mx", "HTTPS"]) | numbered)
schemathesis.openapi.format("ip", address)
schemathesis.openapi.format("ip-list", st.lists(address, min_size=1, max_size=4).map(",".join))
"""


def main():
    install()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        (folder / "tidegate.toml").write_text(CONFIGURATION)
        (folder / "hooks.py").write_text(HOOKS)
        command = [TIDEGATE, "serve", "--config", folder / "tidegate.toml"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as daemon:
            try:
                check(folder, address(daemon))
            finally:
                daemon.terminate()
                daemon.communicate()
    print("openapi: passed")


def install():
    if (VENV / "complete").exists():
        return
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        subprocess.run([VENV / "bin" / "pip", "install", "--quiet", PACKAGE], check=True)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            sys.exit(f"openapi: FAILED: {error}")
        print("openapi: SKIPPED, PyPI or python3-venv is not to be had; in CI this is a failure", file=sys.stderr)
        sys.exit(0)
    (VENV / "complete").touch()


def address(daemon):
    lines = []
    for line in daemon.stdout:
        lines.append(line)
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        if found:
            return found[0]
    sys.exit("openapi: FAILED: the daemon ended:\n" + "".join(lines))


def check(folder, url):
    command = [VENV / "bin" / "schemathesis", "run", f"{url}/api/v1/openapi.json", "--checks", "all"]
    # The same examples each time: a failure that comes and goes helps nobody.
    options = ["--max-examples", "20", "--seed", "1", "--request-timeout", "30", "--no-color"]
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "hooks", "PYTHONPATH": str(folder)}
    ran = subprocess.run(command + options, cwd=folder, env=environment, capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"openapi: FAILED:\n{ran.stdout}{ran.stderr}")


if __name__ == "__main__":
    main()
