"""Rows about connections: idle, slow, half-open, floods of HTTP/2 frames, and the same over QUIC."""

import resource
import socket
import ssl
import struct
import subprocess
import tempfile
import threading
import time

import quic
from stage import SITE, Daemon, answer, ask, query, serve
from support import eventually

IDLE = 5
LIMITS = f'[limits]\ntcp_idle = "{IDLE}s"\ntcp_connections = 4096\ntcp_per_client = 200\n'
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + struct.pack("!I", 4)[1:] + b"\0\0\0\0\0\0"


def plain(message, _):
    if b"\3big" in message:
        end = message.index(b"\0", 12) + 5
        records = b"\xc0\x0c\0\1\0\1\0\0\1\x2c\0\4\x0a\x14\1\1" * 2000
        if len(message) > end + 11:
            return message[:2] + b"\x83\x80\0\1\0\0\0\0\0\0" + message[12:end]
        return message[:2] + b"\x81\x80\0\1" + struct.pack("!H", 2000) + bytes(4) + message[12:end] + records
    return answer(message)


def certified(folder):
    """The tables of the encrypted listeners, with a certificate of this run."""
    subject = ["-subj", "/CN=dns.example", "-addext", "subjectAltName=DNS:dns.example,IP:127.0.0.1"]
    files = ["-keyout", f"{folder}/key.pem", "-out", f"{folder}/chain.pem"]
    kind = ["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    subprocess.run(["openssl", "req", *kind, *subject, *files], check=True, capture_output=True)
    return f"""
[server.tls]
tls = ["127.0.0.1:853"]
https = ["127.0.0.1:443"]
quic = ["127.0.0.1:853"]
certificate = "{folder}/chain.pem"
key = "{folder}/key.pem"
"""


def tls(port, alpn=None, source="127.0.0.1"):
    context = ssl._create_unverified_context()
    if alpn:
        context.set_alpn_protocols([alpn])
    stream = socket.create_connection(("127.0.0.1", port), 10, (source, 0))
    return context.wrap_socket(stream, server_hostname="dns.example")


def read_frame(stream):
    octets = b""
    while len(octets) < 2 or len(octets) < 2 + struct.unpack("!H", octets[:2])[0]:
        more = stream.recv(4096)
        if not more:
            raise ConnectionError("closed")
        octets += more
    return octets[2:]


def honest_turn():
    """Seconds that a new client of each transport waits for its answer: the longest."""
    longest = 0.0
    framed = struct.pack("!H", len(query("w.example"))) + query("w.example")
    body = query("w.example")
    head = f"POST /dns-query HTTP/1.1\r\nHost: x\r\nContent-Type: application/dns-message\r\nContent-Length: {len(body)}\r\n\r\n"
    openings = {
        "tcp": (lambda: socket.create_connection(("127.0.0.1", 53), 10), framed),
        "tls": (lambda: tls(853, "dot"), framed),
        "https": (lambda: tls(443, "http/1.1"), head.encode() + body),
    }
    assert ask("w.example") is not None, "UDP is not answered"
    for transport, (opening, octets) in openings.items():
        start = time.monotonic()
        try:
            with opening() as stream:
                stream.settimeout(10)
                stream.sendall(octets)
                response = stream.recv(4096)
        except OSError as error:
            raise AssertionError(f"an honest client over {transport}: {error}") from error
        assert b"\x0a\x14\1\1" in response or transport == "https" and b" 200 " in response, f"{transport}: {response}"
        longest = max(longest, time.monotonic() - start)
    start = time.monotonic()
    assert b"\x0a\x14\1\1" in quic.ask("w.example"), "an honest client over QUIC"
    return max(longest, time.monotonic() - start)


def idle(count):
    return [attacker(number) for number in range(count)]


def attacker(number, port=53):
    """A connection from one of many addresses."""
    stream = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    stream.bind((address(number), 0))
    stream.settimeout(2)
    try:
        stream.connect(("127.0.0.1", port))
    except OSError:
        pass
    return stream


def half_open_quic(count):
    """Handshakes that stop after their first packet."""
    return [quic.Client(address(number)) for number in range(count)]


def one_octet_streams(count):
    """As many streams as a connection may have, with one octet each."""
    return [quic.Client(address(number)).shake_hands().send(b"\0", False) for number in range(count)]


def unread_streams(count):
    """As many large answers as a connection may have streams, and nobody who reads them."""
    message = quic.framed(query("big.example"))
    return [quic.Client(address(number)).shake_hands().send(message, True) for number in range(count)]


def address(number):
    """One of many addresses, of 150 connections each."""
    return f"127.1.{number // 150 // 250}.{number // 150 % 250 + 1}"


def slow_writers(count):
    """An octet a second of a message that never ends."""
    streams = [attacker(number) for number in range(count)]
    for stream in streams:
        quietly(stream.send, b"\xff")
    return streams


def slow_readers(count):
    """Forty large answers each, and nobody who reads them."""
    body = query("big.example")
    streams = [attacker(number) for number in range(count)]
    for stream in streams:
        stream.settimeout(0.05)
        quietly(stream.sendall, (struct.pack("!H", len(body)) + body) * 40)
    return streams


def half_open_tls(count):
    """The first octets of a ClientHello."""
    streams = [attacker(number, 853 if number % 2 else 443) for number in range(count)]
    for stream in streams:
        quietly(stream.send, b"\x16\3\1\2\0\1\0")
    return streams


def frame(kind, flags, stream, payload=b""):
    return struct.pack("!I", len(payload))[1:] + bytes([kind, flags]) + struct.pack("!I", stream) + payload


def h2(count, frames):
    """Connections that write frames for as long as they are let."""
    streams = []

    def write(stream):
        turn = 0
        quietly(stream.sendall, PREFACE)
        while quietly(stream.sendall, frames(turn)):
            turn += 1

    for number in range(count):
        stream = tls(443, "h2", f"127.1.9.{number + 1}")
        streams.append(stream)
        threading.Thread(target=write, args=(stream,), daemon=True).start()
    return streams


GET = b"\x82\x87\x04\x0a/dns-query\x01\x01x"


def rapid_reset(count):
    def frames(turn):
        numbers = [2 * (50 * turn + n) + 1 for n in range(50)]
        return b"".join(frame(1, 5, n, GET) + frame(3, 0, n, b"\0\0\0\x08") for n in numbers)

    return h2(count // 100 or 1, frames)


def continuation(count):
    header = b"\0\1x\x64" + b"y" * 100
    return h2(count // 100 or 1, lambda turn: (b"" if turn else frame(1, 1, 1, GET)) + frame(9, 0, 1, header * 150))


def quietly(act, *arguments):
    try:
        act(*arguments)
        return True
    except OSError:
        return False


def row(attack, count):
    def run(program, scale):
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        with tempfile.TemporaryDirectory() as folder, serve("127.0.2.1", plain), serve("127.0.2.2", plain):
            with Daemon(program, SITE + LIMITS + certified(folder)) as daemon:
                honest_turn()
                ask("big.example")
                memory, longest = daemon.mebibytes(), 0.0
                streams = attack(max(1, int(count * scale)))
                for _ in range(10):
                    longest = max(longest, honest_turn())
                peak = daemon.mebibytes() - memory
                start = time.monotonic()
                eventually("all of them are closed", lambda: daemon.metric("tidegate_connections") < 1)
                closed = time.monotonic() - start
                for stream in streams:
                    stream.close()
        assert peak < 256, f"grown by {peak:.0f} MiB"
        assert scale < 1 or longest <= 1, f"an honest client waited {longest:.2f} s"
        assert scale < 1 or closed <= 2 * IDLE + 5, f"closed after {closed:.0f} s"
        return f"{len(streams)} connections: a new client over TCP, TLS, HTTPS or QUIC waited {longest:.2f} s at most; " \
               f"grown by {peak:.0f} MiB; closed after {closed:.0f} s"

    return run


ROWS = {
    "idle": row(idle, 10_000),
    "writers": row(slow_writers, 2_000),
    "readers": row(slow_readers, 1_000),
    "handshakes": row(half_open_tls, 2_000),
    "reset": row(rapid_reset, 500),
    "continuation": row(continuation, 500),
    "quic-handshakes": row(half_open_quic, 2_000),
    "quic-octets": row(one_octet_streams, 100),
    "quic-unread": row(unread_streams, 16),
}
