"""The row `soak`: 100 million queries and 20 minutes, whichever takes longer, while all that changes in years changes.

dnsperf asks for cached names in a closed loop; a client of ours asks for names that nobody asked for before, more than the
cache holds. Meanwhile, over and over: a reload with another rule, an upstream that goes and comes, another certificate,
addresses, links and routes that come and go, new clients over every transport.
"""

import os
import pathlib
import re
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import threading
import time

from connections import certified, honest_turn, tls
from stage import CHILDREN, PORT, SITE, Daemon, Honest, Skipped, answer, ask
from support import eventually

QUERIES, SECONDS = 100_000_000, 20 * 60
# dnsperf is started anew for each part, of this many seconds.
PART = 60
# Of the whole: until then memory may grow, for what is kept of minutes and hours, and for what the allocator keeps.
WARM_UP = 0.3
HOT = [f"h{n}.example" for n in range(2000)]
# More than a cache of 4 MiB holds: what it takes when it is full is no growth.
FILLING = [f"cf{n}.example" for n in range(60_000)]


def cold_name(number):
    return f"c{number}.example"


def upstream(message, _):
    # Hot names expire all the time; what is asked for once fills the cache.
    return answer(message, ttl=300 if message[13:14] == b"c" else 5)


class Flapping:
    """An upstream that can be taken away: gone, or there and silent."""

    def __init__(self, address):
        self.address = address
        self.come()

    def come(self):
        self.process = CHILDREN.Process(target=self.work, daemon=True)
        self.process.start()

    def work(self):
        # Its socket is its own: one that other processes have too would stay bound without it.
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        server.bind((self.address, PORT))
        while True:
            message, sender = server.recvfrom(4096)
            server.sendto(upstream(message, sender), sender)

    def go(self):
        self.process.kill()
        self.process.join()

    def flap(self, seconds, is_silent):
        if is_silent:
            os.kill(self.process.pid, signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(self.process.pid, signal.SIGCONT)
        else:
            self.go()
            time.sleep(seconds)
            self.come()


class Perf(threading.Thread):
    """dnsperf, part after part, until there were enough queries."""

    def __init__(self, names, queries, seconds):
        super().__init__(daemon=True)
        self.names, self.queries, self.seconds = names, queries, seconds
        self.sent = self.lost = 0
        self.codes = {}
        self.error = None
        self.began = time.monotonic()

    def progress(self):
        return min(self.sent / self.queries, (time.monotonic() - self.began) / self.seconds)

    def run(self):
        part = max(2, min(PART, round(self.seconds / 10)))
        words = ["dnsperf", "-s", "127.0.0.1", "-d", self.names, "-l", str(part), "-q", "200", "-c", "16", "-t", "5"]
        while self.progress() < 1:
            ended = subprocess.run(words, capture_output=True, text=True)
            figures = dict(re.findall(r"(Queries sent|Queries lost): +(\d+)", ended.stdout))
            if ended.returncode or len(figures) < 2:
                self.error = ended.stdout[-500:] + ended.stderr[-500:]
                return
            self.sent += int(figures["Queries sent"])
            self.lost += int(figures["Queries lost"])
            for code, times in re.findall(r"([A-Z]+) (\d+) \(", ended.stdout.split("Response codes:")[1]):
                self.codes[code] = self.codes.get(code, 0) + int(times)


class Changes:
    """What is done over and over, and how often it was."""

    def __init__(self, program, daemon, folder, tables):
        self.program, self.daemon, self.folder, self.tables = program, daemon, folder, tables
        self.config = pathlib.Path(daemon.folder.name) / "tidegate.toml"
        self.flapping = [Flapping("127.0.2.1"), Flapping("127.0.2.2")]
        self.turns = self.longest = 0

    def turn(self):
        number = self.turns
        self.reload(number)
        self.flapping[number % 2].flap(3, number % 4 < 2)
        self.swap(number)
        self.network(number)
        self.longest = max(self.longest, honest_turn())
        self.turns += 1

    def reload(self, number):
        rule = f'[[local]]\nzone = "z{number % 7}.test"\nrecords = ["www A 10.1.1.{number % 250}"]\n'
        self.write(self.tables + (rule if number % 3 else ""))

    def write(self, tables):
        text = self.config.read_text()
        head = text[: text.index("[server]")]
        self.config.write_text(head + tables[tables.index("[server]") :])
        subprocess.run([self.program, "reload", "--config", self.config], check=True, capture_output=True)

    def swap(self, number):
        before = served()
        certified(self.folder)
        # Without a reload: the files are looked at every 2 s.
        if number % 2:
            self.write(self.tables)
        eventually("the new certificate is served", lambda: served() != before)

    def network(self, number):
        address = f"10.99.{number % 200}.1"
        run = lambda *words: subprocess.run(["ip", *words], check=True)  # noqa: E731
        run("address", "add", f"{address}/32", "dev", "lo")
        run("link", "add", "soak", "type", "veth", "peer", "name", "away")
        run("link", "set", "away", "up")
        run("link", "set", "soak", "up")
        run("address", "add", "10.98.0.1/24", "dev", "soak")
        run("route", "add", "10.97.0.0/16", "via", "10.98.0.9")
        time.sleep(0.5)
        run("link", "delete", "soak")
        run("address", "delete", f"{address}/32", "dev", "lo")

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.daemon.process.pid}/fd"))


def served():
    with tls(853, "dot") as stream:
        return stream.getpeercert(True)


def soak(program, scale):
    if not shutil.which("dnsperf"):
        raise Skipped("the load is dnsperf's: apt-get install dnsperf")
    queries, seconds = max(100_000, QUERIES * scale), max(60, SECONDS * scale)
    memory, descriptors = [], []
    with tempfile.TemporaryDirectory() as folder:
        names = pathlib.Path(folder) / "names"
        names.write_text("".join(f"{name} A\n" for name in HOT))
        filling = pathlib.Path(folder) / "filling"
        filling.write_text("".join(f"{name} A\n" for name in FILLING))
        tables = SITE.replace("64MiB", "4MiB") + certified(folder)
        with Daemon(program, tables, socket=f"{folder}/control.sock") as daemon:
            changes = Changes(program, daemon, folder, tables)
            try:
                eventually("names are cached", lambda: all(ask(name) for name in HOT))
                subprocess.run(["dnsperf", "-s", "127.0.0.1", "-d", filling, "-n", "1"], check=True, capture_output=True)
                perf = Perf(names, queries, seconds)
                with Honest(cold_name, patience=10.0) as cold:
                    perf.start()
                    while perf.is_alive():
                        changes.turn()
                        if perf.progress() >= WARM_UP:
                            memory.append(daemon.mebibytes())
                            descriptors.append(changes.descriptors())
                took = time.monotonic() - perf.began
            finally:
                for each in changes.flapping:
                    each.go()
            assert perf.error is None, perf.error
            part = max(1, len(memory) // 10)
            first, last = statistics.median(memory[:part]), statistics.median(memory[-part:])
            told = ", ".join(f"{times} {code}" for code, times in sorted(perf.codes.items()))
            figure = f"{perf.sent} queries in {took / 60:.0f} minutes ({told}), {perf.lost} lost; {len(cold.took)} new names, " \
                     f"{cold.unanswered} without an address, the slowest answered after {max(cold.took):.1f} s; {changes.turns} each of " \
                     f"reloads, upstream flaps, certificates, network changes, new clients on every transport (served within " \
                     f"{changes.longest:.2f} s); {first:.1f} MiB after the warm-up, {last:.1f} at the end, " \
                     f"{max(memory):.1f} at most; descriptors {descriptors[0]}, then {descriptors[-1]}, {max(descriptors)} at most"
            assert max(cold.took) < cold.patience, figure
            assert perf.lost == 0 and set(perf.codes) == {"NOERROR"}, figure
            assert scale < 0.1 or last <= 1.05 * first, figure
            # Sockets to upstreams come and go with the load.
            assert scale < 0.1 or max(descriptors[-part:]) <= max(descriptors[:part]) + 16, figure
            assert not daemon.logged("ERROR", ""), figure
            return figure


ROWS = {"soak": soak}
