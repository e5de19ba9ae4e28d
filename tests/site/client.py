"""What an application of the site does: boto3 with no endpoint of its own, which resolves through resolv.conf.

    client.py once           each service once; prints the caller's account
    client.py loop           objects put and got, each over a new connection, until standard input is closed;
                             gives calls, failures, retries of the SDK, the longest call
    client.py lookups NAME   addresses of names below NAME, each another one, until standard input is closed;
                             gives how many, failures, what was found, the longest lookup

Both print a line for each turn, and their figures in the end.
"""

import json
import socket
import sys
import threading
import time

import boto3
import botocore.config
import botocore.exceptions

BUCKET = "site-data"


def main():
    print(json.dumps({"once": once, "loop": loop, "lookups": lookups}[sys.argv[1]]()))


def once():
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": s3.meta.region_name})
    s3.put_object(Bucket=BUCKET, Key="a", Body=b"x" * 100_000)
    assert s3.get_object(Bucket=BUCKET, Key="a")["Body"].read() == b"x" * 100_000
    boto3.client("cloudwatch").put_metric_data(Namespace="site", MetricData=[{"MetricName": "m", "Value": 1.0}])
    return {"account": boto3.client("sts").get_caller_identity()["Account"]}


def until_closed():
    """An event that comes when standard input is closed."""
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    return ended


def lookups():
    ended = until_closed()
    count, failed, addresses, longest = 0, [], set(), 0.0
    while not ended.wait(0.05):
        since = time.monotonic()
        count += 1
        try:
            found = socket.getaddrinfo(f"n{count}.{sys.argv[2]}", None, socket.AF_INET, socket.SOCK_DGRAM)
            addresses |= {address[0] for *_, address in found}
        except OSError as error:
            failed.append(str(error))
        longest = max(longest, time.monotonic() - since)
        print(flush=True)
    return {"lookups": count, "failed": failed, "addresses": sorted(addresses), "longest": round(longest, 2)}


def loop():
    ended = until_closed()
    session = boto3.Session()
    calls = retries = 0
    failed, longest = [], 0.0
    while not ended.is_set():
        # A new client has no connection yet: each turn resolves the name.
        # Not the SDK's 60 s: a connection under way when the source address changes is lost, and the SDK has to notice.
        s3 = session.client("s3", config=botocore.config.Config(connect_timeout=5, read_timeout=5))
        for call in (
            lambda: s3.put_object(Bucket=BUCKET, Key="loop", Body=b"y" * 20_000),
            lambda: s3.get_object(Bucket=BUCKET, Key="loop"),
        ):
            since = time.monotonic()
            calls += 1
            try:
                retries += call()["ResponseMetadata"]["RetryAttempts"]
            except botocore.exceptions.BotoCoreError as error:
                failed.append(str(error))
            longest = max(longest, time.monotonic() - since)
        s3.close()
        print(flush=True)
    return {"calls": calls, "failed": failed, "retries": retries, "longest": round(longest, 2)}


if __name__ == "__main__":
    main()
