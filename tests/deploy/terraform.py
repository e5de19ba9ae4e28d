#!/usr/bin/env python3
"""deploy/terraform and deploy/ansible: what parsers that others wrote say of them, and that they fit together with tidegate.

    tests/deploy/terraform.py TARGET/debug/tidegate

No provider can be had here, so nothing is planned or applied: an HCL parser (python-hcl2, PyPI) reads the module, `terraform fmt`
or `tofu fmt` too where there is one, and every reference has to lead to something declared. ansible-playbook checks the
playbook's syntax.
"""

import json
import pathlib
import re
import shutil
import subprocess
import sys

from support import ROOT, with_packages, workplace

TIDEGATE = pathlib.Path(sys.argv[1]).resolve()
with_packages(TIDEGATE.parent.parent / "deploy-terraform", "python-hcl2==8.1.4", "ansible-core==2.19.14")

import hcl2

MODULE = ROOT / "deploy/terraform"
PLAYBOOK = ROOT / "deploy/ansible"


def main():
    module()
    outputs_feed_discover()
    playbook()
    print("terraform, ansible: passed")


def module():
    for program in ("terraform", "tofu"):
        if shutil.which(program):
            done = subprocess.run([program, "fmt", "-check", "-diff", MODULE], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout
    declared, text = set(), ""
    for file in sorted(MODULE.glob("*.tf")):
        text += file.read_text()
        for kind, blocks in hcl2.loads(file.read_text()).items():
            for block in blocks if isinstance(blocks, list) else []:
                declared |= {".".join(path) for path in addresses(kind, block)}
    assert {"var.vpc_id", "output.discover", "aws_route53_resolver_endpoint.inbound"} <= declared, declared
    code = re.sub(r"#.*", "", text)
    used = {f"var.{name}" for name in re.findall(r"\bvar\.(\w+)", code)}
    used |= set(re.findall(r"\bdata\.aws_\w+\.\w+", code)) | set(re.findall(r"(?<![\w.\"])aws_\w+\.\w+", code))
    assert used <= declared, f"not declared: {sorted(used - declared)}"
    unused = {name for name in declared if name.startswith("var.")} - used
    assert not unused, f"never used: {sorted(unused)}"


def addresses(kind, block):
    """How other blocks refer to what this one declares."""
    name = lambda text: text.strip('"')
    for first, rest in block.items():
        if kind == "variable":
            yield "var", name(first)
        elif kind == "output":
            yield "output", name(first)
        elif kind in ("resource", "data"):
            for second in rest:
                yield (*(["data"] if kind == "data" else []), name(first), name(second))


def outputs_feed_discover():
    """The document of the output `discover`, with the keys that stand in the file, is one that `tidegate discover` reads."""
    text = (MODULE / "outputs.tf").read_text()
    keys = re.findall(r"^\s+(Ip|SubnetId|IpId|Status) +=", text, re.MULTILINE)
    assert keys == ["Ip", "SubnetId", "IpId", "Status"] and "IpAddresses = [" in text, keys
    document = {
        "IpAddresses": [
            {"Ip": ip, "SubnetId": "subnet-0a", "IpId": "rni-1", "Status": "ATTACHED"} for ip in ("10.20.1.10", "10.20.2.10")
        ]
    }
    done = subprocess.run([TIDEGATE, "discover"], input=json.dumps(document), capture_output=True, text=True)
    assert done.stdout == '[upstream.vpc]\nservers = ["10.20.1.10", "10.20.2.10"]\n', (done.stdout, done.stderr)


def playbook():
    ansible = pathlib.Path(sys.executable).with_name("ansible-playbook")
    with workplace() as folder:
        environment = {"ANSIBLE_HOME": str(folder), "ANSIBLE_LOCAL_TEMP": str(folder), "PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8"}
        command = [ansible, "--syntax-check", "-i", PLAYBOOK / "inventory.example.yml", PLAYBOOK / "tidegate.yml"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


if __name__ == "__main__":
    main()
