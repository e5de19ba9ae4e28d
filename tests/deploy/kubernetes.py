#!/usr/bin/env python3
"""The manifests and the chart of deploy/: every object against the schema of Kubernetes, every pod against "restricted".

    tests/deploy/kubernetes.py TARGET/debug/tidegate

Schemas are those that kubernetes-validate (PyPI) ships. Bases are built by `kubectl kustomize`, the chart is rendered by
helm.go with Go's text/template and Debian's sprig; where a tool is missing, a note says what was not seen.
"""

import json
import os
import pathlib
import shutil
import subprocess
import sys

from support import ROOT, with_packages, workplace

TIDEGATE = pathlib.Path(sys.argv[1]).resolve()
with_packages(TIDEGATE.parent.parent / "deploy-kubernetes", "kubernetes-validate==1.37.0", "jsonschema==4.26.0", "PyYAML==6.0.3")

import jsonschema
import kubernetes_validate
import yaml

BASES = ROOT / "deploy/kubernetes"
CHART = ROOT / "deploy/helm/tidegate"
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


def bases():
    if not shutil.which("kubectl"):
        print("note: there is no kubectl; only the files of deploy/kubernetes that stand alone are validated", file=sys.stderr)
        for file in sorted(BASES.glob("*/*.yaml")):
            for found in yaml.safe_load_all(file.read_text()):
                if isinstance(found, dict) and found["kind"] not in FOREIGN | {"Kustomization"}:
                    # kustomize adds the selector.
                    found["spec"].setdefault("selector", {"matchLabels": {"a": "b"}}) if found["kind"] == "Deployment" else 0
                    validate(found)
        return
    for base, workload in {"deployment": "Deployment", "nodelocal": "DaemonSet", "sidecar": "Deployment", "monitoring": "Deployment"}.items():
        printed = subprocess.run(["kubectl", "kustomize", BASES / base], check=True, capture_output=True, text=True).stdout
        kinds = check_objects(list(yaml.safe_load_all(printed)))
        assert workload in kinds, (base, kinds)


def chart():
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    schema = json.loads((CHART / "values.schema.json").read_text())
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    cargo = (ROOT / "Cargo.toml").read_text()
    assert f'version = "{about["appVersion"]}"' in cargo, "Chart.yaml and Cargo.toml are of one version"
    for wrong in WRONG:
        try:
            jsonschema.validate(merged(values, wrong), schema)
        except jsonschema.ValidationError:
            continue
        raise AssertionError(f"the chart takes {wrong}")
    for name, (own, expected) in VALUES.items():
        all_values = merged(values, own)
        jsonschema.validate(all_values, schema)
        printed = rendered(all_values, about)
        if printed is None:
            return
        objects = [found for found in yaml.safe_load_all(printed) if found]
        kinds = check_objects(objects)
        assert kinds == expected, f"{name}: {kinds}"


def rendered(values, about):
    with workplace() as folder:
        (folder / "values.json").write_text(json.dumps(values))
        (folder / "values.yaml").write_text(yaml.safe_dump(values))
        (folder / "chart.json").write_text(json.dumps(about))
        if shutil.which("helm"):
            command = ["helm", "template", "dns", CHART, "--values", folder / "values.yaml"]
        elif shutil.which("go") and pathlib.Path("/usr/share/gocode/src/github.com/Masterminds/sprig").exists():
            command = ["go", "run", ROOT / "tests/deploy/helm.go", CHART, "dns", folder / "values.json", folder / "chart.json"]
        else:
            print("note: there is no helm, nor Go with sprig (Debian packages golang-go and "
                  "golang-github-masterminds-sprig-dev); the chart is not rendered", file=sys.stderr)
            return None
        environment = {**os.environ, "GO111MODULE": "off", "GOPATH": "/usr/share/gocode", "GOFLAGS": "", "GOCACHE": str(TIDEGATE.parent.parent / "deploy-go")}
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout


def merged(values, own):
    """As helm merges a values file into the chart's own."""
    both = {key: own.get(key, value) for key, value in values.items()} | {key: value for key, value in own.items() if key not in values}
    return {
        key: merged(values[key], value) if isinstance(value, dict) and values.get(key) and value else value
        for key, value in both.items()
    }


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
