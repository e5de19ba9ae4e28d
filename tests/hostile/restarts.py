"""Rows about restarts: 50 of them each way under 5,000 queries a second, and how the connections of clients end.

The row plays systemd: a notification socket that keeps descriptors (`store`), sockets that it bound itself (`activation`),
or nothing but `--takeover`. A query is lost if no answer came within 5 s.
"""

import collections
import contextlib
import fcntl
import os
import pathlib
import select
import signal
import socket
import ssl
import struct
import tempfile
import threading
import time

import quic
from connections import certified, read_frame, tls
from stage import SITE, Child, answer, ask, query, serve
from support import PATIENCE, Running, eventually

RESTARTS = 50
RATE = 5000
# A client that was held up goes on at its rate, and does not send all that it has missed: that would be another load.
BURST = RATE // 100
LATE = 5.0
WARM = [f"w{n}.example" for n in range(50)]
# What an upstream takes for a miss: much less than the 300 ms for what was read before the end.
MISS = 0.05
SO_RCVBUFFORCE = 33
APPLICATION_ERROR = 12


def upstream(message, _):
    if message[12:].startswith(b"\4miss"):
        time.sleep(MISS)
    return answer(message, ttl=3600)


class Load(Child):
    """Queries over UDP at a steady rate, each of which wants its answer."""

    PATIENCE = 3 * LATE

    def take(self, found):
        self.sent, self.lost, self.slowest, self.seconds = found

    def work(self):
        sockets = [client() for _ in range(16)]
        places = {each.fileno(): place for place, each in enumerate(sockets)}
        poller = select.epoll()
        for descriptor in places:
            poller.register(descriptor, select.EPOLLIN)
        tails = [query(name)[2:] for name in WARM]
        waiting, lost, slowest, sent, end = {}, 0, 0.0, 0, None
        start = due_since = time.monotonic()
        already = 0
        while end is None or waiting and time.monotonic() < end + LATE:
            now = time.monotonic()
            if end is None and self.stop.is_set():
                end = now
            due = int((now - due_since) * RATE) - already
            if due > BURST:
                due_since, already, due = now, 0, BURST
            for _ in range(due if end is None else 0):
                place, number = sent % len(sockets), sent // len(sockets) % 65536
                lost += waiting.pop((place, number), None) is not None
                waiting[place, number] = now
                with contextlib.suppress(OSError):
                    # An ICMP error is a lost query, which waits for ever.
                    sockets[place].send(struct.pack("!H", number) + tails[sent % len(tails)])
                sent, already = sent + 1, already + 1
            for descriptor, _ in poller.poll(0.001):
                place = places[descriptor]
                with contextlib.suppress(BlockingIOError):
                    while True:
                        try:
                            response = sockets[place].recv(512)
                        except ConnectionRefusedError:
                            continue
                        if response[3] & 15:
                            continue
                        since = waiting.pop((place, struct.unpack("!H", response[:2])[0]), None)
                        took = time.monotonic() - since if since else 0
                        slowest, lost = max(slowest, took), lost + (took > LATE)
        self.into.send((sent, lost + len(waiting), slowest, end - start))


def client():
    each = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 4 << 20)
    each.connect(("127.0.0.1", 53))
    each.setblocking(False)
    return each


class Streams(Child):
    """Clients of connections: how often which transport's connection ended, and how."""

    PATIENCE = 3 * LATE

    def take(self, found):
        self.ends = found

    def work(self):
        ends = collections.Counter()

        def go_on(transport, turn, pause):
            while not self.stop.is_set():
                end = turn(pause, self.stop)
                if not self.stop.is_set():
                    ends[transport, end] += 1

        # Clients that wait for nothing, that ask all the time, and that ask before they have their answers.
        turns = {"tcp": tcp_turn, "tls": tls_turn, "https": https_turn, "quic": quic_turn}
        clients = [(name, turn, pause) for name, turn in turns.items() for pause in (None, None, 0.002, 0.01)]
        clients += [("tcp", pipelined(tcp_turn), 0.0005), ("tls", pipelined(tls_turn), 0.0005), ("tcp-writing", writing_turn, 0.001)]
        threads = [threading.Thread(target=go_on, args=each, daemon=True) for each in clients]
        for thread in threads:
            thread.start()
        self.stop.wait()
        deadline = time.monotonic() + LATE
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        self.into.send(dict(ends))


def stream_turn(opening, octets, read, pause, stop):
    """One connection from its beginning to its end; what its end was."""
    try:
        stream = opening()
    except ConnectionRefusedError:
        return "not connected"
    except (ssl.SSLError, OSError) as error:
        # The process that accepted it ended before the handshake did.
        return f"in its handshake: {type(error).__name__}"
    with stream:
        stream.settimeout(3 * LATE)
        try:
            while not stop.is_set():
                stream.sendall(octets)
                read(stream)
                while pause is None and not stop.is_set():
                    if select.select([stream], [], [], 0.2)[0]:
                        stream.recv(1) or closed()
                        return "it said what nobody asked for"
                time.sleep(pause or 0)
            return "stopped"
        except OSError as error:
            return "in order" if str(error) == "closed" else type(error).__name__


def closed():
    raise ConnectionError("closed")


FRAMED = quic.framed(query(WARM[0]))
POST = b"POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dns-message\r\nContent-Length: %d\r\n\r\n"


def tcp_turn(pause, stop, octets=FRAMED, read=read_frame):
    return stream_turn(lambda: socket.create_connection(("127.0.0.1", 53), LATE), octets, read, pause, stop)


def tls_turn(pause, stop, octets=FRAMED, read=read_frame):
    # Without close_notify this is an error, not an end.
    return stream_turn(lambda: strict(tls(853, "dot")), octets, read, pause, stop)


def pipelined(turn):
    """A client that writes 20 queries before it reads."""
    return lambda pause, stop: turn(pause, stop, FRAMED * 20, lambda stream: [read_frame(stream) for _ in range(20)])


def writing_turn(pause, stop):
    """A client over TCP that writes on whatever comes; what reading says at last is the end."""
    try:
        stream = socket.create_connection(("127.0.0.1", 53), LATE)
    except OSError as error:
        return f"not connected: {type(error).__name__}"
    with stream:
        writer = threading.Thread(target=write_on, args=(stream, pause, stop), daemon=True)
        writer.start()
        end = "stopped"
        try:
            while not stop.is_set():
                if not stream.recv(65536):
                    end = "in order"
                    break
        except OSError as error:
            end = type(error).__name__
        with contextlib.suppress(OSError):
            stream.shutdown(socket.SHUT_RDWR)
        writer.join(LATE)
    return end


def write_on(stream, pause, stop):
    with contextlib.suppress(OSError):
        while not stop.is_set():
            stream.sendall(FRAMED * 20)
            time.sleep(pause)


def https_turn(pause, stop):
    octets = POST % (len(FRAMED) - 2) + FRAMED[2:]
    return stream_turn(lambda: strict(tls(443, "http/1.1")), octets, read_response, pause, stop)


def read_response(stream):
    octets = b""
    while b"\r\n\r\n" not in octets:
        octets += stream.recv(4096) or closed()
    head, body = octets.split(b"\r\n\r\n", 1)
    length = int(head.lower().split(b"content-length:")[1].split()[0])
    while len(body) < length:
        body += stream.recv(4096) or closed()


def strict(stream):
    stream.suppress_ragged_eofs = False
    return stream


def quic_turn(pause, stop):
    from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted, StreamDataReceived

    client = quic.Client("127.0.0.1")
    connection, has_hands, end = client.connection, False, None
    next_query = 0.0
    while end is None and not stop.is_set():
        while event := connection.next_event():
            if isinstance(event, HandshakeCompleted):
                has_hands = True
            elif isinstance(event, ConnectionTerminated):
                end = event
            elif isinstance(event, StreamDataReceived) and event.end_stream and pause is not None:
                next_query = time.monotonic() + pause
        now = time.monotonic()
        if has_hands and end is None and now >= next_query:
            next_query = float("inf")
            client.send(FRAMED, True, streams=1)
        client.flush()
        timer = connection.get_timer()
        left = 0.2 if timer is None else max(0.001, min(0.2, timer - time.time()))
        client.socket.settimeout(min(left, max(0.001, next_query - now)))
        try:
            connection.receive_datagram(client.socket.recv(65536), quic.SERVER, now=time.time())
        except TimeoutError:
            if timer is not None and time.time() >= timer:
                connection.handle_timer(now=time.time())
        except OSError as error:
            end = error
    client.socket.close()
    if end is None:
        return "stopped"
    if isinstance(end, OSError):
        return type(end).__name__
    # DOQ_NO_ERROR, by the server and not by the transport (RFC 9250 4.3).
    is_in_order = end.error_code == 0 and end.frame_type is None and not end.reason_phrase
    # Before the server has the client's last message of the handshake it can say no more (RFC 9000 10.2.3).
    where = "" if has_hands and end.error_code != APPLICATION_ERROR else "in its handshake: "
    return where + ("in order" if is_in_order else f"{end.error_code} {end.reason_phrase}")


class Systemd:
    """What systemd is to the daemon: it keeps sockets, passes them on, and hears that it is ready."""

    def __init__(self, folder):
        self.path = f"{folder}/notify"
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(self.path)
        self.notify.settimeout(PATIENCE)
        self.held = []

    def bind(self, name, kind, port):
        """A socket as a socket unit has it, with the buffer of deploy/systemd/tidegate.socket."""
        each = socket.socket(socket.AF_INET, kind)
        each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if kind == socket.SOCK_DGRAM:
            each.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        each.bind(("127.0.0.1", port))
        if kind == socket.SOCK_STREAM:
            each.listen(4096)
        self.held.append((name, each.detach()))

    def start(self, running, *words):
        """Starts the daemon with all that is held, and returns once it is ready."""
        copies = [fcntl.fcntl(held, fcntl.F_DUPFD, 200) for _, held in self.held]
        passed = [f"{place + 3}<&{copy} {copy}<&-" for place, copy in enumerate(copies)]
        given = f'LISTEN_PID=$$ LISTEN_FDS={len(copies)} LISTEN_FDNAMES={":".join(name for name, _ in self.held)}'
        script = f'export NOTIFY_SOCKET={self.path} {given if copies else ""}; exec "$@" {" ".join(passed)}'
        process = running.start("bash", "-c", script, "bash", *words, pass_fds=copies)
        for copy in copies:
            os.close(copy)
        while not self.hear(process):
            pass
        return process

    def hear(self, process):
        """Takes in one notification; true if it says READY."""
        try:
            text, descriptors, _, _ = socket.recv_fds(self.notify, 4096, 253)
        except TimeoutError:
            raise AssertionError(f"the daemon is not ready; it is {process.poll()}") from None
        lines = dict(line.split("=", 1) for line in text.decode().splitlines() if "=" in line)
        self.held += [(lines["FDNAME"], each) for each in descriptors]
        return lines.get("READY") == "1"


def drops():
    """Datagrams to port 53 that found a receive buffer full."""
    lines = pathlib.Path("/proc/net/udp").read_text().splitlines()[1:]
    return sum(int(line.split()[-1]) for line in lines if line.split()[1].endswith(":0035"))


def restart(way):
    def run(program, scale):
        count = max(2, round(RESTARTS * scale))
        with tempfile.TemporaryDirectory() as folder, serve("127.0.2.1", upstream), serve("127.0.2.2", upstream), \
                Running() as running:
            systemd = Systemd(folder)
            config = pathlib.Path(folder) / "tidegate.toml"
            admin = f'[admin]\nhttp = "127.0.0.1:9153"\nsocket = "{folder}/control.sock"\n[log]\nformat = "json"\n'
            site = SITE.replace("[server]\n", "[server]\nworkers = 2\n")
            # As in the configurations that are shipped: what was cached is cached after the restart.
            site = site.replace("[cache]\n", f'[cache]\nsnapshot = "{folder}/cache"\n')
            config.write_text(admin + site + certified(folder))
            if way == "activation":
                for port, kind in ((53, socket.SOCK_DGRAM), (853, socket.SOCK_DGRAM), (53, socket.SOCK_STREAM),
                                   (853, socket.SOCK_STREAM), (443, socket.SOCK_STREAM)):
                    systemd.bind("dns", kind, port)
            words = [program, "serve", "--config", config]
            process = systemd.start(running, *words)
            eventually("names are cached", lambda: all(ask(name) for name in WARM))
            took = []
            dropped = drops()
            with Load() as load, Streams() as streams:
                for _ in range(count):
                    # All clients have their connections by then.
                    time.sleep(0.5)
                    before, start = process, time.monotonic()
                    if way == "takeover":
                        process = systemd.start(running, *words, "--takeover")
                    else:
                        before.send_signal(signal.SIGTERM)
                        assert before.wait(PATIENCE) == 0, "it ends in order"
                        process = systemd.start(running, *words)
                    took.append(time.monotonic() - start)
                    assert before.wait(PATIENCE) == 0, "the one before ends in order"
                time.sleep(0.5)
            dropped = drops() - dropped
            for each in [each for _, each in systemd.held]:
                os.close(each)
        ends = collections.Counter()
        for (transport, end), times in streams.ends.items():
            ends[f"{transport} {end}"] += times
        told = ", ".join(f"{times} {end}" for end, times in sorted(ends.items()))
        figure = f"{count} restarts of {sorted(took)[count // 2]:.2f} s (at most {max(took):.2f} s): " \
                 f"{load.sent} queries at {load.sent / load.seconds:.0f}/s, {load.lost} lost ({dropped} of them for a full " \
                 f"buffer), the slowest answered after {load.slowest:.2f} s; connections ended: {told}"
        assert load.lost == 0, figure
        for transport in ("tcp", "tls", "https", "quic"):
            assert ends[f"{transport} in order"] >= count, figure
        faults = [end for end in ends if not end.endswith(" in order") and "handshake" not in end]
        assert not faults, figure
        return figure

    return run


ROWS = {way: restart(way) for way in ("store", "takeover", "activation")}
