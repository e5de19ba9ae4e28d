#!/usr/bin/env python3
"""Writes what tidegate knows of AWS's service names, from the endpoint data of botocore.

    python3 -m venv v && v/bin/pip install botocore && v/bin/python config/presets/generate.py

services.txt (beside this script, compiled in) tells which interface endpoint service makes a name private.
tests/data/endpoints.txt has every endpoint host name, for the test that holds the presets against them.
"""

import datetime
import pathlib
import re
from collections import defaultdict
from urllib.parse import urlparse

import botocore
import botocore.session
from botocore.endpoint_provider import EndpointProvider
from botocore.exceptions import BotoCoreError

HERE = pathlib.Path(__file__).resolve().parent
SERVICES = HERE / "services.txt"
ENDPOINTS = HERE.parent.parent / "tests" / "data" / "endpoints.txt"

# Endpoint services are named as the host is, with its labels turned round ("api.ecr" is "ecr.api"). These are not;
# from AWS's page "AWS services that integrate with AWS PrivateLink" and the services' own pages on interface endpoints.
# "*." stands for any labels in front; "=" is the whole of a name without Region; none = AWS has no such endpoint.
NAMED_OTHERWISE = {
    "*.dkr.ecr": "ecr.dkr",
    "*.d.codeartifact": "codeartifact.repositories",
    "*.ddb": "dynamodb",
    "*.execute-api": "execute-api",
    "*.iot": "iot.data",
    "*.credentials.iot": "iot.credentials",
    "*.s3": "s3",
    "*.s3-accesspoint": "s3",
    "*.s3-control": "s3",
    "*.control-kinesis": "kinesis-streams",
    "*.data-kinesis": "kinesis-streams",
    "appstream2": "appstream.api",
    "codeartifact": "codeartifact.api",
    "codestar-connections": "codestar-connections.api",
    "credentials.iot": "iot.credentials",
    "data-ats.iot": "iot.data",
    "dkr.ecr": "ecr.dkr",
    "ec2messages": "ec2messages",
    "ecs-a": "ecs-agent",
    "ecs-t": "ecs-telemetry",
    "email-smtp": "email-smtp",
    "execute-api": "execute-api",
    "firehose": "kinesis-firehose",
    "git-codecommit": "git-codecommit",
    "iot": "iot",
    "kinesis": "kinesis-streams",
    "rds-data": "rds-data",
    "s3": "s3",
    "s3-accesspoint": "s3",
    "s3-control": "s3",
    "ssmmessages": "ssmmessages",
    "streams.dynamodb": "dynamodb-streams",
    "sync-states": "sync-states",
    "=iam": "com.amazonaws.iam",
    "=*.accesspoint.s3-global": "com.amazonaws.s3-global.accesspoint",
}
# Host names that exist in public only.
NO_ENDPOINT = re.compile(r"(^|\.)(signin|dualstack|s3-website|ecr-public|s3-object-lambda)(\.|-|$)|\..*-fips$")


def main():
    session = botocore.session.get_session()
    loader = session.get_component("data_loader")
    partitions = loader.load_data("partitions")
    hosts = defaultdict(set)
    for service in loader.list_available_services("endpoint-rule-set-1"):
        hosts_by_rules(loader, service, partitions, hosts)
    hosts_by_table(loader.load_data("endpoints"), hosts)
    source = f"botocore {botocore.__version__}, {datetime.date.today()}"
    write_services(source, service_names(hosts, loader))
    write_endpoints(source, partitions, hosts)


def is_region(name):
    return re.fullmatch(r"[a-z]+(-[a-z]+)+-\d+", name) is not None


def hosts_by_rules(loader, service, partitions, hosts):
    """Resolves the service's endpoint in each Region, plain, FIPS and dual-stack."""
    rules = loader.load_service_model(service, "endpoint-rule-set-1")
    provider = EndpointProvider(rules, partitions)
    for partition in partitions["partitions"]:
        for region in filter(is_region, partition["regions"]):
            for fips, dual_stack in ((False, False), (True, False), (False, True), (True, True)):
                known = {"AWS::Region": region, "AWS::UseFIPS": fips, "AWS::UseDualStack": dual_stack}
                parameters = {
                    name: known[parameter["builtIn"]]
                    for name, parameter in rules["parameters"].items()
                    if parameter.get("builtIn") in known
                }
                try:
                    url = provider.resolve_endpoint(**parameters).url
                except BotoCoreError:
                    continue
                hosts[partition["id"]].add((region, urlparse(url).hostname))


def hosts_by_table(table, hosts):
    """The older list of endpoints, which names some that no rule does."""
    for partition in table["partitions"]:
        regions = list(partition["regions"])
        for service, about in partition["services"].items():
            for region, endpoint in about.get("endpoints", {}).items():
                for variant in (endpoint, *endpoint.get("variants", ())):
                    if "hostname" not in variant and not is_region(region):
                        continue
                    template = variant.get("hostname", partition["defaults"]["hostname"])
                    suffix = variant.get("dnsSuffix", partition["dnsSuffix"])
                    host = template.format(service=service, region=region, dnsSuffix=suffix)
                    if ":" in host:
                        continue  # DynamoDB on localhost
                    at = next((known for known in regions if f".{known}." in f".{host}."), "")
                    hosts[partition["partition"]].add((at, host.lower()))


def service_names(hosts, loader):
    """Labels in front of the Region -> endpoint service; "*." in front where any label may precede."""
    names = {}
    for region, host in hosts["aws"]:
        labels, middle, suffix = host.partition(f".{region}.")
        if not middle or suffix not in ("amazonaws.com", "api.aws") or NO_ENDPOINT.search(labels):
            continue
        names[labels] = ".".join(reversed(labels.split(".")))
    # Operations with a host of their own: "api." of Managed Airflow, "data." of IoT SiteWise.
    for service in loader.list_available_services("service-2"):
        model = loader.load_service_model(service, "service-2")
        own = model["metadata"]["endpointPrefix"]
        prefixes = {operation.get("endpoint", {}).get("hostPrefix", "") for operation in model["operations"].values()}
        for prefix in filter(lambda prefix: re.fullmatch(r"[a-z-]+\.", prefix) and own in names, prefixes):
            labels = prefix + own
            names.setdefault(labels, ".".join(reversed(labels.split("."))))
    for labels in [labels for labels in names if labels.split(".")[0].endswith("-fips")]:
        plain = labels.replace("-fips", "", 1)
        if plain in NAMED_OTHERWISE:
            names[labels] = f"{NAMED_OTHERWISE[plain]}-fips"
    return names | NAMED_OTHERWISE


def write_services(source, names):
    lines = [
        "# Which interface endpoint service makes a service's name private: the labels in front of the Region, and the",
        "# service where it is called otherwise. \"*.\" = any labels in front, \"=\" = a name without Region.",
        f"# Made by config/presets/generate.py from {source}. AWS's data does not say whether a Region has the service.",
    ]
    for labels, service in sorted(names.items()):
        lines.append(labels if labels == service else f"{labels} {service}")
    SERVICES.write_text("\n".join(lines) + "\n")
    print(f"{SERVICES.name}: {len(names)} names")


def write_endpoints(source, partitions, hosts):
    """Templates with R, S and D for Region, DNS suffix and dual-stack suffix, each with the partitions that have it."""
    templates = defaultdict(set)
    lines = [
        "# Every endpoint host name of AWS: R is each Region of a partition, S its DNS suffix, D its dual-stack suffix.",
        f"# Made by config/presets/generate.py from {source}.",
    ]
    for partition in partitions["partitions"]:
        name, outputs = partition["id"], partition["outputs"]
        regions = sorted(filter(is_region, partition["regions"]))
        suffixes = outputs["dnsSuffix"], outputs["dualStackDnsSuffix"]
        lines.append(f"partition {name} {suffixes[0]} {suffixes[1]} {','.join(regions)}")
        for region, host in hosts[name]:
            template = f".{host}".replace(f".{region}.", ".R.", 1) if region else f".{host}"
            for letter, suffix in sorted(zip("SD", suffixes), key=lambda pair: -len(pair[1])):
                if template.endswith(f".{suffix}"):
                    template = template.removesuffix(suffix) + letter
                    break
            templates[template[1:]].add(name)
    names = [partition["id"] for partition in partitions["partitions"]]
    grouped = defaultdict(list)
    for template, have in sorted(templates.items()):
        grouped[",".join(name for name in names if name in have)].append(template)
    for have, group in sorted(grouped.items()):
        lines.append(f"in {have}")
        lines.extend(group)
    ENDPOINTS.parent.mkdir(exist_ok=True)
    ENDPOINTS.write_text("\n".join(lines) + "\n")
    print(f"{ENDPOINTS.name}: {len(templates)} templates of {sum(map(len, hosts.values()))} names")


if __name__ == "__main__":
    main()
