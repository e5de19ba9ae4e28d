"""Rows about messages: mutated queries and answers, forged answers, floods of new names."""

import bisect
import random
import socket
import struct
import time

from stage import CHILDREN, INSIDE, OUTSIDE, SITE, Daemon, Honest, answer, ask, calm, child, judge, query, serve
from support import addresses, eventually

WARM = [f"w{n}.example" for n in range(50)]


def plain(message, _):
    return answer(message)


def mutate(message, chance=random):
    """Some octets changed, some cut off or put in, or a count that lies."""
    octets = bytearray(message)
    for _ in range(chance.randrange(1, 6)):
        at = chance.randrange(len(octets)) if octets else 0
        match chance.randrange(5):
            case 0 if octets:
                octets[at] ^= 1 << chance.randrange(8)
            case 1 if octets:
                octets[at] = chance.choice((0, 1, 0x3F, 0x40, 0xC0, 0xFF))
            case 2:
                del octets[at : at + chance.randrange(1, 9)]
            case 3:
                octets[at:at] = bytes(chance.randrange(256) for _ in range(chance.randrange(1, 9)))
            case _ if len(octets) >= 12:
                octets[4 + chance.randrange(8)] = chance.choice((0, 1, 2, 255))
    return bytes(octets)


def queries(program, scale):
    """2,000,000 mutated queries, one in ten over TCP, while an honest client asks what is cached."""
    count = int(2_000_000 * scale)

    def attack(done):
        chance = random.Random(1)
        opt = b"\0\0\x29\x04\xd0\0\0\x80\0\0\x0c\0\x0a\0\x08abcdefgh"
        seeds = [query(name, qtype) for name in WARM[:9] for qtype in (1, 28, 65, 255, 252)]
        seeds += [seed[:11] + b"\1" + seed[12:] + opt for seed in seeds]
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(("127.0.0.1", 53))
        client.setblocking(False)
        for number in range(count // 10):
            for _ in range(9):
                try:
                    client.send(mutate(chance.choice(seeds), chance))
                except OSError:
                    pass
            over_tcp(mutate(chance.choice(seeds), chance), number % 50)
            while number % 20 == 0:
                try:
                    client.recv(4096)
                except OSError:
                    break
        done.set()

    streams = {}

    def over_tcp(message, place):
        for _ in range(2):
            try:
                if place not in streams:
                    streams[place] = socket.create_connection(("127.0.0.1", 53), 5)
                streams[place].sendall(struct.pack("!H", len(message)) + message)
                return
            except OSError:
                # It was closed for what came before.
                streams.pop(place, None)

    with serve("127.0.2.1", plain), serve("127.0.2.2", plain), Daemon(program, SITE) as daemon:
        before, memory = calm(WARM, 3), daemon.mebibytes()
        done = CHILDREN.Event()
        start = time.monotonic()
        with child(attack, done) as attacker, Honest(WARM) as honest:
            while not done.wait(0.2):
                assert attacker.is_alive(), "the attacker ended"
        rate = count / (time.monotonic() - start)
        grown = daemon.mebibytes() - memory
        assert grown < 160, f"grown by {grown:.0f} MiB"
        said = judge(honest, before, 1.2, scale)
        return f"{count} mutated queries at {rate:.0f}/s; {said}; grown by {grown:.0f} MiB"


def answers(program, scale):
    """500,000 mutated upstream answers under the guard: no address outside `private` leaves."""
    count = int(500_000 * scale)

    def hostile(message, _):
        chance = random.Random(message)
        sound = answer(message, chance.choice((INSIDE, OUTSIDE)))
        # Half of them keep id and question, so that what stands behind is read.
        end = len(message) - 11 if message[11] else len(message)
        return sound[:end] + mutate(sound[end:], chance) if chance.random() < 0.5 else mutate(sound, chance)

    def client(part, into):
        leaked = answered = 0
        sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(8)]
        for each in sockets:
            each.connect(("127.0.0.1", 53))
            each.settimeout(0.02)
        for number in range(part, count, 2 * len(sockets)):
            for offset, each in enumerate(sockets):
                each.send(query(f"m{number + 2 * offset}.aws.example"))
            for each in sockets:
                try:
                    response = each.recv(4096)
                except OSError:
                    continue
                found = addresses(response) if response[3] & 15 == 0 else []
                answered += bool(found)
                leaked += sum(not address.startswith("10.20.") for address in found)
        into.send((answered, leaked))

    config = SITE.replace('servers = ["127.0.2.1"]', 'servers = ["127.0.2.1"]\nattempts = 1\nhedge = false')
    config += '[limits]\nin_flight = 65536\n'
    with serve("127.0.2.1", hostile), serve("127.0.2.2", plain), Daemon(program, config) as daemon:
        ends = [CHILDREN.Pipe(False) for _ in range(2)]
        with child(client, 0, ends[0][1]), child(client, 1, ends[1][1]):
            told = [out.recv() for out, _ in ends]
        answered, leaked = (sum(each) for each in zip(*told))
        assert leaked == 0, f"{leaked} addresses outside left"
        refused = daemon.metric("tidegate_guard_violations_total")
        assert refused > 0 and answered > 0, f"{answered} answered, {refused:.0f} refused by the guard"
        return f"{count} mutated answers: none leaked, {answered} passed, {refused:.0f} refused by the guard"


def spoofing(program, scale):
    """Forged answers at 100,000 a second for a minute, to queries whose true answers come late and are not kept."""
    seen, forged = CHILDREN.Queue(), CHILDREN.Value("L", 0)

    def late(server):
        while True:
            message, sender = server.recvfrom(4096)
            if message[12:].startswith(b"\6victim"):
                seen.put((time.monotonic(), message[:2], sender[1]))
            time.sleep(0.05)
            server.sendto(answer(message, ttl=0), sender)

    def forge(server):
        ids = [struct.pack("!H", number) for number in range(65536)]
        forgery = answer(query("victim.example"), OUTSIDE)[2:]
        start, sent = time.monotonic(), 0
        while True:
            for _ in range(1000):
                server.sendto(random.choice(ids) + forgery, ("127.0.0.1", random.randrange(1024, 65536)))
            sent += 1000
            with forged.get_lock():
                forged.value += 1000
            time.sleep(max(0.0, start + sent / 50_000 - time.monotonic()))

    # The forgers send from the upstream's own socket: nothing but id and port tells their answers from true ones.
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, serve("127.0.2.1", plain):
        server.bind(("127.0.2.2", 53))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        with Daemon(program, SITE) as daemon, child(late, server), child(forge, server), child(forge, server):
            starts, end = [], time.monotonic() + max(60 * scale, 5)
            while time.monotonic() < end:
                starts.append(time.monotonic())
                found = ask("victim.example", len(starts) % 65536)
                assert found in (None, ["10.20.1.1"]), f"{found} was accepted"
            rate = forged.value / (time.monotonic() - starts[0])
            heard = daemon.metric("tidegate_upstream_mismatches_total")
            datagrams = []
            while not seen.empty():
                datagrams.append(seen.get())
    of_each = [0] * len(starts)
    for at, _, _ in datagrams:
        of_each[max(0, bisect.bisect(starts, at) - 1)] += 1
    assert max(of_each) <= 3, f"{max(of_each)} datagrams for one query"
    return f"{len(starts)} queries under {rate:.0f} forged answers a second: none accepted, {heard:.0f} reached a port of " \
           f"ours; at most {max(of_each)} datagrams a query, from {len({port for _, _, port in datagrams})} ports"


def names(program, scale):
    """New names at five times what their upstream takes; cached ones, another group, and what is left afterwards."""
    capacity, seconds = 500, max(5, 30 * scale)

    def limited(server):
        tokens, filled = 20.0, time.monotonic()
        while True:
            message, sender = server.recvfrom(4096)
            now = time.monotonic()
            tokens, filled = min(20.0, tokens + (now - filled) * capacity), now
            if tokens >= 1:
                tokens -= 1
                server.sendto(answer(message), sender)

    def flood():
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        client.connect(("127.0.0.1", 53))
        client.setblocking(False)
        start, sent = time.monotonic(), 0
        while True:
            client.send(query(f"u{sent}.example"))
            sent += 1
            time.sleep(max(0.0, start + sent / (5 * capacity) - time.monotonic()))

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.2.2", 53))
        with child(limited, server), serve("127.0.2.1", plain), Daemon(program, SITE) as daemon:
            eventually("names are cached", lambda: all(ask(name) for name in WARM))
            before, memory = calm(WARM, 3), daemon.mebibytes()
            other = Honest(lambda number: f"o{number}.aws.example", pause=0.02)
            with child(flood), Honest(WARM) as honest, other:
                time.sleep(seconds)
            start = time.monotonic()
            eventually("new names are answered again", lambda: ask(f"r{time.monotonic_ns()}.example", patience=0.2))
            recovered, grown = time.monotonic() - start, daemon.mebibytes() - memory
            said = judge(honest, before, 2, scale)
            assert other.unanswered == 0, f"{other.unanswered} of another group's names unanswered"
            assert grown < 160, f"grown by {grown:.0f} MiB"
            assert scale < 1 or recovered <= 1, f"recovered after {recovered:.1f} s"
            return f"{5 * capacity} new names/s for {capacity}/s: {said}; the other group's {len(other.took)} answered; " \
                   f"grown by {grown:.0f} MiB; recovered after {recovered:.2f} s"


ROWS = {"queries": queries, "answers": answers, "spoofing": spoofing, "names": names}
