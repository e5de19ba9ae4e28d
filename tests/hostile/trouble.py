"""Rows about the host: descriptors, clocks, a stopped process, a log that nobody reads, a full disk."""

import os
import signal
import socket
import subprocess
import tempfile
import time

from stage import SITE, Daemon, Honest, Skipped, answer, ask, metric, serve
from support import eventually

WARM = [f"w{n}.example" for n in range(20)]


def plain(message, _):
    return answer(message)


def upstreams():
    return serve("127.0.2.1", plain), serve("127.0.2.2", plain)


def warmed(daemon):
    eventually("names are cached", lambda: all(ask(name) for name in WARM))
    return daemon


def no_server_is_blamed(daemon):
    down = daemon.logged("WARN", "is down")
    assert not down, f"a server is blamed: {down[0]['fields']}"


def files(limit):
    def run(program, scale):
        one, two = upstreams()
        with one, two, Daemon(program, SITE, files=limit) as daemon:
            warmed(daemon)
            taken = []
            with Honest(WARM) as honest:
                for _ in range(max(limit * 2, int(1000 * scale))):
                    stream = socket.socket()
                    stream.setblocking(False)
                    stream.connect_ex(("127.0.0.1", 53))
                    taken.append(stream)
                answered = sum(ask(f"n{n}.example", patience=4.0) is not None for n in range(50))
            for stream in taken:
                stream.close()
            eventually("misses are answered", lambda: ask(f"r{time.monotonic_ns()}.example"))
            assert honest.unanswered == 0, f"{honest.unanswered} hits unanswered"
            no_server_is_blamed(daemon)
            return f"{len(taken)} connections: {len(honest.took)} hits answered, {answered} of 50 misses, none blamed"

    return run


def stopped(program, scale):
    """SIGSTOP for a minute: what was read is answered, TTLs went on, no server is blamed for the silence."""
    seconds = max(3, 60 * scale)
    one, two = upstreams()
    with one, two, Daemon(program, SITE) as daemon:
        warmed(daemon)
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(seconds)
        daemon.process.send_signal(signal.SIGCONT)
        start = time.monotonic()
        eventually("a hit is answered", lambda: ask(WARM[0], patience=0.5))
        eventually("a miss is answered", lambda: ask(f"s{time.monotonic_ns()}.example", patience=0.5))
        took = time.monotonic() - start
        no_server_is_blamed(daemon)
        assert scale < 1 or took < 1, f"the first answers took {took:.1f} s"
        return f"stopped for {seconds:.0f} s: hits and misses are answered {took:.2f} s later, no server is blamed"


def clock(program, scale):
    """The wall clock a day ahead and a day back, by libfaketime."""
    found = subprocess.run(["sh", "-c", "ls /usr/lib/*/faketime/libfaketime.so.1"], capture_output=True, text=True)
    if not found.stdout:
        raise Skipped("no wall clock can be set without libfaketime: apt-get install faketime")
    one, two = upstreams()
    path = "/tmp/tidegate-hostile-clock"
    set_clock(path, "+0")
    faked = ["env", f"LD_PRELOAD={found.stdout.split()[0]}", f"FAKETIME_TIMESTAMP_FILE={path}",
             "FAKETIME_NO_CACHE=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"]
    with one, two, Daemon(program, SITE, launcher=faked) as daemon:
        warmed(daemon)
        with Honest(WARM) as honest:
            for offset in ("+1d", "-1d", "+0") * 2:
                set_clock(path, offset)
                time.sleep(2)
                assert ask(f"c{time.monotonic_ns()}.example") is not None, f"a miss at {offset}"
        assert honest.unanswered == 0, f"{honest.unanswered} hits unanswered"
        no_server_is_blamed(daemon)
        return f"a day ahead and back, twice: {len(honest.took)} hits answered, no server is blamed"


def set_clock(path, offset):
    with open(path, "w") as file:
        file.write(offset)


def log(program, scale):
    """A line for each query into a pipe that nobody reads, as of a journald that hangs, until lines are lost and after."""
    reader, writer = os.pipe()
    one, two = upstreams()
    config = '[admin]\nhttp = "127.0.0.1:9153"\nsocket = ""\n[log]\nlevel = "debug"\nqueries = "all"\nformat = "json"\n' + SITE
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file, one, two:
        file.write(config)
        file.flush()
        words = [str(program), "serve", "--config", file.name]
        process = subprocess.Popen(words, stderr=writer, stdin=subprocess.DEVNULL)
        try:
            eventually("it answers", lambda: ask(WARM[0], patience=0.5))
            with Honest(WARM, pause=0) as honest, Honest(WARM, pause=0) as other:
                eventually("lines are lost", lost)
                time.sleep(max(3, 20 * scale))
                dropped = lost()
            honest.took += other.took
            honest.unanswered += other.unanswered
            assert honest.unanswered == 0, f"{honest.unanswered} of {len(honest.took)} hits unanswered"
            assert ask(f"l{time.monotonic_ns()}.example") is not None, "a miss is not answered"
        finally:
            process.kill()
            process.wait()
            os.close(reader)
            os.close(writer)
    return f"{len(honest.took)} hits answered, each with a line that nobody read; {dropped:.0f} lines counted as lost"


def lost():
    return metric("tidegate_log_dropped_total", 'sink="log"')


def disk(program, scale):
    """Snapshot and record on a disk without room."""
    folder = "/mnt"
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "full", folder], check=True)
    with open(f"{folder}/filler", "wb") as filler:
        try:
            filler.write(bytes(1 << 20))
        except OSError:
            pass
    tables = SITE.replace("[cache]\n", f'[cache]\nsnapshot = "{folder}/cache"\n') + f'[perimeter]\nrecord = "{folder}"\n'
    one, two = upstreams()
    try:
        with one, two, Daemon(program, tables) as daemon:
            warmed(daemon)
            with Honest(WARM) as honest:
                daemon.process.send_signal(signal.SIGUSR1)
                eventually("the error is counted", lambda: daemon.metric("tidegate_snapshot_errors_total") > 0)
                time.sleep(2)
            assert honest.unanswered == 0, f"{honest.unanswered} hits unanswered"
            assert ask(f"d{time.monotonic_ns()}.example") is not None, "a miss is not answered"
            return f"{len(honest.took)} hits answered, the error is counted and said"
    finally:
        subprocess.run(["umount", folder], check=True)


ROWS = {"files-64": files(64), "files-256": files(256), "stopped": stopped, "clock": clock, "log": log, "disk": disk}
