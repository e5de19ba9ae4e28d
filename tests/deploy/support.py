"""What the tests of deploy/ share: namespaces, programs that end with the test, a DNS query, bounded waiting."""

import contextlib
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
INSIDE = "TIDEGATE_TEST_INSIDE_NAMESPACES"
PATIENCE = 60


def inside_namespaces():
    """Runs this script again in network and mount namespaces of its own, where every port is free."""
    if os.environ.get(INSIDE):
        return
    if os.geteuid() != 0:
        sys.exit(f"{sys.argv[0]}: makes network namespaces, which needs root")
    os.environ[INSIDE] = "1"
    command = ["unshare", "--net", "--mount", "--propagation", "private", "sh", "-ec", 'ip link set lo up; exec "$0" "$@"']
    os.execvp(command[0], [*command, sys.executable, *sys.argv])


@contextlib.contextmanager
def workplace():
    """A folder that anybody may enter, since some programs give up root."""
    with tempfile.TemporaryDirectory(prefix="tidegate-deploy-") as folder:
        os.chmod(folder, 0o755)
        yield pathlib.Path(folder)


class Running:
    """Programs that are ended when the test is; what they said is shown when it fails."""

    def __init__(self):
        self.programs = []

    def __enter__(self):
        return self

    def start(self, *words, **more):
        log = tempfile.TemporaryFile("w+")
        words = [str(word) for word in words]
        process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, **more)
        self.programs.append((words, process, log))
        return process

    def stop(self, process, with_signal=signal.SIGTERM):
        process.send_signal(with_signal)
        return process.wait(timeout=PATIENCE)

    def said(self, process):
        log = next(log for _, other, log in self.programs if other is process)
        log.seek(0)
        return log.read()

    def __exit__(self, kind, error, trace):
        for words, process, log in reversed(self.programs):
            if process.poll() is None:
                process.kill()
            process.wait()
            if kind is not None:
                log.seek(0)
                print(f"--- {' '.join(words)}\n{log.read()[-3000:]}", file=sys.stderr)
            log.close()


def eventually(what, holds, patience=PATIENCE):
    """What `holds` returns once that is true; says what was waited for when it never is."""
    end = time.monotonic() + patience
    error = None
    while time.monotonic() < end:
        try:
            found = holds()
            if found:
                return found
        except (OSError, subprocess.CalledProcessError) as failed:
            error = failed
        time.sleep(0.05)
    raise AssertionError(f"not within {patience} s: {what} ({error})")


def query_for(name, qtype=1, edns=False):
    """A query as octets, with a random id."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.rstrip(".").split("."))
    header = struct.pack("!6H", random.randrange(65536), 0x0100, 1, 0, 0, int(edns))
    opt = struct.pack("!BHHIH", 0, 41, 1232, 0, 0) if edns else b""
    return header + labels + struct.pack("!BHH", 0, qtype, 1) + opt


def ask(server, name, qtype=1, timeout=1.0, port=53, edns=False):
    """The rcode and the IPv4 addresses that a server answers with; None where it does not answer."""
    query = query_for(name, qtype, edns)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        try:
            client.connect((server, port))
            client.send(query)
            message = client.recv(4096)
        except OSError:
            return None
    if len(message) < 12 or message[:2] != query[:2]:
        return None
    return message[3] & 15, addresses(message)


def addresses(message):
    answers = struct.unpack("!H", message[6:8])[0]
    at = skip_name(message, 12) + 4
    found = []
    for _ in range(answers):
        at = skip_name(message, at)
        kind, _, _, length = struct.unpack("!HHIH", message[at : at + 10])
        at += 10
        if kind == 1 and length == 4:
            found.append(socket.inet_ntoa(message[at : at + 4]))
        at += length
    return found


def skip_name(message, at):
    while message[at]:
        if message[at] >= 0xC0:
            return at + 2
        at += message[at] + 1
    return at + 1


def with_packages(folder, *packages):
    """Runs this script again in a virtual environment in `folder` that has these packages from PyPI.

    Where PyPI cannot be reached: 77, or a failure where CI is set.
    """
    python = folder / "bin" / "python"
    if pathlib.Path(sys.prefix).resolve() == folder.resolve():
        return
    wanted = "\n".join(packages)
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != wanted:
        try:
            subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
            subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        except subprocess.CalledProcessError as error:
            print(f"{sys.argv[0]}: SKIPPED, PyPI or python3-venv is not to be had: {error}", file=sys.stderr)
            sys.exit(1 if os.environ.get("CI") else 77)
        complete.write_text(wanted)
    os.execv(python, [str(python), *sys.argv])
