"""What the rows share: a daemon with its upstreams, and honest clients that measure."""

import contextlib
import json
import multiprocessing
import pathlib
import socket
import struct
import tempfile
import time
import urllib.request

from support import Running, addresses, eventually

INSIDE, OUTSIDE = bytes([10, 20, 1, 1]), bytes([198, 51, 100, 66])
PORT = 53
# Not `spawn`: children need this module as it is, and there are no threads when they start.
CHILDREN = multiprocessing.get_context("fork")


def query(name, qtype=1, number=0):
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!6H", number, 0x0100, 1, 0, 0, 0) + labels + struct.pack("!BHH", 0, qtype, 1)


def question_end(message):
    at = 12
    while message[at]:
        at += message[at] + 1
    return at + 5


def answer(message, address=INSIDE, ttl=300):
    """The response to a query: one address for an A query, no data for any other."""
    end = question_end(message)
    is_address = message[end - 4 : end] == b"\0\1\0\1"
    head = message[:2] + b"\x81\x80\0\1" + (b"\0\1" if is_address else b"\0\0") + bytes(4) + message[12:end]
    return head + (b"\xc0\x0c\0\1\0\1" + struct.pack("!IH", ttl, 4) + address if is_address else b"")


def serve(address, respond):
    """Answers over UDP in a process of its own: what `respond` makes of a query and its sender, or nothing."""
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
    server.bind((address, PORT))

    def work():
        while True:
            message, sender = server.recvfrom(4096)
            response = respond(message, sender)
            if response:
                server.sendto(response, sender)

    return child(work)


@contextlib.contextmanager
def child(work, *arguments):
    """A process that is ended with the block."""
    process = CHILDREN.Process(target=work, args=arguments, daemon=True)
    process.start()
    try:
        yield process
    finally:
        process.kill()
        process.join()


class Skipped(Exception):
    """A row that cannot be run here, with the reason."""


class Daemon:
    """A daemon that listens on 127.0.0.1:53, with its log, until the block ends."""

    def __init__(self, program, tables, files=65536, launcher=(), socket=""):
        self.folder = tempfile.TemporaryDirectory(prefix="tidegate-hostile-")
        self.running = Running()
        path = pathlib.Path(self.folder.name) / "tidegate.toml"
        path.write_text(f'[admin]\nhttp = "127.0.0.1:9153"\nsocket = "{socket}"\n[log]\nformat = "json"\n{tables}')
        words = ["sh", "-c", f'ulimit -n {files}; exec "$@"', "sh", *launcher, program, "serve", "--config", path]
        self.process = self.running.start(*words)

    def __enter__(self):
        eventually("the daemon is ready", lambda: '"ready"' in self.log())
        return self

    def __exit__(self, kind, error, trace):
        self.running.__exit__(kind, error, trace)
        self.folder.cleanup()

    def log(self):
        assert self.process.poll() is None, f"the daemon ended: {self.running.said(self.process)[-2000:]}"
        return self.running.said(self.process)

    def logged(self, level, text):
        lines = [json.loads(line) for line in self.log().splitlines() if line.startswith("{")]
        return [line for line in lines if line["level"] == level and text in line["fields"].get("message", "")]

    def mebibytes(self):
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024

    def metric(self, name, labels=""):
        return metric(name, labels)


def metric(name, labels=""):
    with urllib.request.urlopen("http://127.0.0.1:9153/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(name) and labels in line)


SITE = """
[server]
listen = ["127.0.0.1:53"]
[cache]
size = "64MiB"
[upstream.vpc]
servers = ["127.0.2.1"]
[upstream.site]
servers = ["127.0.2.2"]
[[forward]]
name = "aws"
zones = ["aws.example"]
to = "vpc"
private = ["10.20.0.0/16"]
on_public = "refuse"
[[forward]]
name = "rest"
zones = ["."]
to = "site"
"""


class Child:
    """Work in a process of its own: `work` goes on until `stop` is set and then sends what it found into `into`; `take` has it."""

    # How long it may need for that, in seconds.
    PATIENCE = 60

    def __init__(self):
        self.stop, (self.out, self.into) = CHILDREN.Event(), CHILDREN.Pipe(False)

    def __enter__(self):
        self.process = CHILDREN.Process(target=self.work, daemon=True)
        self.process.start()
        return self

    def __exit__(self, kind, error, trace):
        self.stop.set()
        if kind is None:
            assert self.out.poll(self.PATIENCE), f"{type(self).__name__} says nothing"
            self.take(self.out.recv())
        self.process.kill()
        self.process.join()


class Honest(Child):
    """A client that asks one name after the other, and how long each answer took."""

    def __init__(self, names, patience=5.0, pause=0.002, port=PORT):
        super().__init__()
        self.names, self.patience, self.pause, self.port = names, patience, pause, port

    def take(self, found):
        self.took, self.unanswered = found

    def work(self):
        took, unanswered, number = [], 0, 0
        while not self.stop.is_set():
            start = time.perf_counter()
            if ask(next_name(self.names, number), number % 65536, self.patience) is None:
                unanswered += 1
            took.append(time.perf_counter() - start)
            number += 1
            time.sleep(self.pause)
        self.into.send((took, unanswered))

    def p99(self):
        """In milliseconds."""
        return sorted(self.took)[len(self.took) * 99 // 100] * 1000 if self.took else 0.0


def next_name(names, number):
    return names(number) if callable(names) else names[number % len(names)]


def ask(name, number=7, patience=5.0, qtype=1):
    """The addresses in the answer; none (not even an empty list) for any failure."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(patience)
        client.connect(("127.0.0.1", PORT))
        client.send(query(name, qtype, number))
        try:
            message = client.recv(4096)
        except OSError:
            return None
    return addresses(message) if message[3] & 15 == 0 else None


def calm(names, seconds):
    """The same client without an attack, for comparison."""
    with Honest(names) as honest:
        time.sleep(seconds)
    assert honest.unanswered == 0, f"{honest.unanswered} honest queries unanswered before the attack"
    return honest.p99()


def judge(honest, before, factor, scale):
    """Every honest query was answered, and in not much more time than before."""
    assert honest.unanswered == 0, f"{honest.unanswered} of {len(honest.took)} honest queries unanswered"
    p99 = honest.p99()
    assert scale < 1 or p99 <= factor * before, f"p99 {p99:.2f} ms, before {before:.2f} ms"
    return f"{len(honest.took)} honest queries answered, p99 {p99:.2f} ms, before {before:.2f} ms"

