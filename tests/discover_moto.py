#!/usr/bin/env python3
"""`tidegate discover` on what the real AWS CLI prints about moto's Route 53 Resolver.

    tests/discover_moto.py TARGET/debug/tidegate

Makes a virtual environment in TARGET, cargo's folder for what it builds, and installs both from PyPI there. Where PyPI
cannot be reached, says so and is content, except where CI is set.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

TIDEGATE = pathlib.Path(sys.argv[1]).resolve()
VENV = TIDEGATE.parent.parent / "discover-moto"
PACKAGES = ("awscli==1.46.3", "moto[server]==5.2.5")


def main():
    if pathlib.Path(sys.prefix).resolve() != VENV.resolve():
        install()
        # Its own path first: that is how Python knows that it runs in the environment.
        python = str(VENV / "bin" / "python")
        os.execv(python, [python, *sys.argv])

    import logging

    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        check(TIDEGATE, Aws(f"http://{host}:{port}"))
    finally:
        server.stop()
    print("discover_moto: passed")


def install():
    if (VENV / "complete").exists():
        return
    try:
        subprocess.run([sys.executable, "-m", "venv", "--clear", VENV], check=True)
        subprocess.run([VENV / "bin" / "pip", "install", "--quiet", *PACKAGES], check=True)
    except subprocess.CalledProcessError as error:
        if os.environ.get("CI"):
            sys.exit(f"discover_moto: FAILED: {error}")
        print("discover_moto: SKIPPED, PyPI or python3-venv is not to be had; in CI this is a failure", file=sys.stderr)
        sys.exit(0)
    (VENV / "complete").touch()


class Aws:
    """The AWS CLI against one endpoint."""

    def __init__(self, endpoint):
        self.environment = {
            "PATH": os.environ["PATH"],
            "AWS_ACCESS_KEY_ID": "none",
            "AWS_SECRET_ACCESS_KEY": "none",
            "AWS_DEFAULT_REGION": "eu-west-1",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_PAGER": "",
        }

    def __call__(self, *arguments):
        command = [VENV / "bin" / "aws", *arguments]
        return subprocess.run(command, env=self.environment, check=True, capture_output=True, text=True).stdout


def check(tidegate, aws):
    endpoint = inbound_endpoint(aws, ["10.20.1.10", "10.20.2.10"])
    list_addresses = ("route53resolver", "list-resolver-endpoint-ip-addresses", "--resolver-endpoint-id", endpoint)
    addresses = aws(*list_addresses)

    found = discover(tidegate, addresses)
    expect(found, 0, '[upstream.vpc]\nservers = ["10.20.1.10", "10.20.2.10"]\n', "")

    # moto attaches at once; one that is not attached is the same text with another word.
    one_detached = addresses.replace("ATTACHED", "REMAP_ATTACHING", 1)
    found = discover(tidegate, one_detached, "--group", "r53")
    head = "# left out, not attached: 10.20.1.10 (REMAP_ATTACHING)\n"
    expect(found, 0, head + '[upstream.r53]\nservers = ["10.20.2.10"]\n', "")

    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "tidegate.toml"
        table = '# ours\n[upstream.vpc]\nservers = ["10.9.9.9"] # soon\n\n[[forward]]\nzones = ["preset:aws"]\nto = "vpc"\n'
        file.write_text(table)
        found = discover(tidegate, addresses, "--write", str(file))
        assert found.returncode == 0, found.stderr
        assert file.read_text() == table.replace('"10.9.9.9"', '"10.20.1.10", "10.20.2.10"'), file.read_text()
        checked = subprocess.run([tidegate, "check", file], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr

    expect(discover(tidegate, aws("route53resolver", "list-resolver-endpoints")), 1, "", endpoint)
    one = aws("route53resolver", "get-resolver-endpoint", "--resolver-endpoint-id", endpoint)
    expect(discover(tidegate, one), 1, "", endpoint)
    expect(discover(tidegate, aws(*list_addresses, "--output", "text")), 1, "", "--output json")
    expect(discover(tidegate, aws(*list_addresses, "--output", "table")), 1, "", "--output json")
    expect(discover(tidegate, aws(*list_addresses, "--query", "IpAddresses[].Ip")), 1, "", "--query")
    expect(discover(tidegate, aws(*list_addresses, "--max-items", "1")), 1, "", "--max-items")


def inbound_endpoint(aws, addresses):
    vpc = json.loads(aws("ec2", "create-vpc", "--cidr-block", "10.20.0.0/16"))["Vpc"]["VpcId"]
    group = json.loads(
        aws("ec2", "create-security-group", "--group-name", "dns", "--description", "dns", "--vpc-id", vpc)
    )["GroupId"]
    places = []
    for address in addresses:
        block = address.rpartition(".")[0] + ".0/24"
        subnet = json.loads(aws("ec2", "create-subnet", "--vpc-id", vpc, "--cidr-block", block))["Subnet"]["SubnetId"]
        places.append(f"SubnetId={subnet},Ip={address}")
    create = ("route53resolver", "create-resolver-endpoint", "--creator-request-id", "1", "--direction", "INBOUND")
    made = aws(*create, "--name", "inbound", "--security-group-ids", group, "--ip-addresses", *places)
    return json.loads(made)["ResolverEndpoint"]["Id"]


def discover(tidegate, printed, *arguments):
    return subprocess.run([tidegate, "discover", *arguments], input=printed, capture_output=True, text=True)


def expect(found, code, output, error):
    assert found.returncode == code, (found.returncode, found.stdout, found.stderr)
    assert found.stdout == output, found.stdout
    assert error in found.stderr, found.stderr


if __name__ == "__main__":
    main()
