"""QUIC clients that do what a test says and nothing more, by aioquic (PyPI) without its event loop."""

import socket
import ssl
import struct
import time

from stage import query

PACKAGES = ("aioquic==1.7.2",)
SERVER = ("127.0.0.1", 853)
PATIENCE = 10
# As many as the daemon allows on a connection (`pipeline`).
STREAMS = 64


def framed(message):
    return struct.pack("!H", len(message)) + message


class Client:
    """A connection whose first packet is sent; it reads only within a method."""

    def __init__(self, source):
        from aioquic.quic.configuration import QuicConfiguration
        from aioquic.quic.connection import QuicConnection

        configuration = QuicConfiguration(alpn_protocols=["doq"], verify_mode=ssl.CERT_NONE, server_name="dns.example")
        self.connection = QuicConnection(configuration=configuration)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((source, 0))
        self.socket.connect(SERVER)
        self.socket.settimeout(PATIENCE)
        self.connection.connect(SERVER, now=time.time())
        self.flush()

    def flush(self):
        for datagram, _ in self.connection.datagrams_to_send(now=time.time()):
            try:
                self.socket.send(datagram)
            except OSError:
                pass

    def until(self, is_it):
        """Reads until this event comes, and returns it."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            while event := self.connection.next_event():
                if is_it(event):
                    return event
            self.connection.receive_datagram(self.socket.recv(65536), SERVER, now=time.time())
            self.flush()
        raise AssertionError("not in time over QUIC")

    def shake_hands(self):
        from aioquic.quic.events import HandshakeCompleted

        self.until(lambda event: isinstance(event, HandshakeCompleted))
        return self

    def send(self, octets, ends, streams=STREAMS):
        """Opens streams and sends these octets on each."""
        for _ in range(streams):
            stream = self.connection.get_next_available_stream_id()
            self.connection.send_stream_data(stream, octets, end_stream=ends)
        self.flush()
        return self

    def close(self):
        self.connection.close()
        self.flush()
        self.socket.close()


def ask(name):
    """The response to a query on a new connection; an error if there is none."""
    from aioquic.quic.events import StreamDataReceived

    client = Client("127.0.0.1").shake_hands().send(framed(query(name)), True, streams=1)
    response = b""
    while True:
        event = client.until(lambda event: isinstance(event, StreamDataReceived))
        response += event.data
        if event.end_stream:
            client.close()
            return response
