"""Bad input: the frames, and a test case with an honest pair that has to go on talking."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.peers.seed_peer import DEFAULT_SPECS, FrameReader, Json, Pair, SeedPeer, b64, decode, encode, secure_frame
from tests.processes import TIMEOUT, ProcessTestCase
from tests.talk import HonestPair

END = b"\n\n"
#: How long the server may take to close a connection for something that it sees at once.
SOON = 30.0


def other_curve() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1()).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def off_curve() -> bytes:
    """A key as it should look, but for its point."""
    pem = Pair.fresh().pem
    key = serialization.load_pem_public_key(pem)
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    text = b64(flip(der, -1))
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join(["-----BEGIN PUBLIC KEY-----", *lines, "-----END PUBLIC KEY-----", ""]).encode("ascii")


def flip(data: bytes, at: int) -> bytes:
    changed = bytearray(data)
    changed[at] ^= 1
    return bytes(changed)


def connect_1(**fields: object) -> Json:
    return {"type": "connect", "phase": 1, "name": "eve", "id": 666, "ciphers": [*DEFAULT_SPECS], "data": {}, **fields}


def connect_3(**fields: object) -> Json:
    data = {"public_key": b64(Pair.fresh().pem), "client_random": b64(os.urandom(32))}
    return {
        "type": "connect",
        "phase": 3,
        "name": "eve",
        "id": 666,
        "ciphers": DEFAULT_SPECS[0],
        "data": data,
        **fields,
    }


def loose_parts() -> dict[str, bytes]:
    """The fields of a box that nothing opens."""
    pair = Pair.fresh()
    return {"iv": bytes(16), "random": pair.random, "ciphertext": b"x" * 10, "public_key": pair.pem}


def secure() -> Json:
    parts = {
        "hash": bytes(32),
        "iv": bytes(16),
        "random": bytes(32),
        "ciphertext": b"x",
        "public_key": Pair.fresh().pem,
    }
    return secure_frame(parts)


#: Frames that are wrong wherever they come.
GARBAGE: dict[str, bytes] = {
    "text": b"garbage",
    "nothing": b"",
    "zeros": bytes(100),
    "not UTF-8": b'{"type": "ack\xff"}',
    "half a character": b'{"type": "ack", "x": "\\ud800"}',
    "a string": b'"connect"',
    "a number": b"1",
    "null": b"null",
    "an array": b'[{"type": "ack"}]',
    "an empty object": b"{}",
    "an unfinished object": b'{"type": "connect"',
    "NaN": b'{"type": "ack", "x": NaN}',
    "Infinity": b'{"type": "ack", "x": -Infinity}',
    "a key twice": b'{"type": "ack", "type": "connect"}',
    "nested": b"[" * 50_000,
    "nested objects": b'{"a":' * 2000,
    "nested in a message": b'{"type": "secure", "x": ' + b"[" * 900 + b"]" * 900 + b"}",
    "a long number": b'{"type": "connect", "id": ' + b"9" * 5000 + b"}",
    "a type that is no string": b'{"type": ["connect"]}',
    "an unknown type": b'{"type": "hello"}',
    "HTTP": b"GET / HTTP/1.1\r\nHost: localhost\r\n\r",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "a list in the clear": encode({"type": "list"}),
    "an unknown phase": encode(connect_1(phase=5)),
    "a phase that is no number": encode(connect_1(phase="1")),
    "a phase that is true": encode(connect_1(phase=True)),
    "phase 2": encode({"type": "connect", "phase": 2, "ciphers": DEFAULT_SPECS[0], "data": {}}),
    "phase 4": encode(connect_3(phase=4)),
}


class HostileTestCase(ProcessTestCase):
    """A server, and an honest pair that has to go on talking whatever is done to it."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.start_server()
        self.port = self.server.port
        self.pair = HonestPair(self.port, pause=0.01)
        self.addCleanup(self.pair.stop)
        self.observer = self.start_peer(self.port, "observer", 500)

    def dial(self) -> socket.socket:
        """A connection that has said nothing."""
        sock = socket.create_connection(("127.0.0.1", self.port), TIMEOUT)
        self.addCleanup(sock.close)
        return sock

    @contextlib.contextmanager
    def no_effect(self, what: str) -> Iterator[None]:
        """See that something changes nothing for others: who is there, and that the honest go on talking."""
        before = self.there()
        yield
        self.pair.check()
        self.wait_for(lambda: self.there() == before, f"{what}: the same clients as before, {before}")
        self.server.check_log()

    def there(self) -> set[int]:
        """The ids of all who are connected."""
        return {entry["id"] for entry in self.observer.list()}

    def refused(self, sock: socket.socket, what: str) -> list[Json]:
        """Read until the server closes; gives the frames that came before that, acks left out."""
        reader, frames = FrameReader(sock), []
        deadline = time.monotonic() + SOON
        try:
            while True:
                frames.append(decode(reader.read(deadline - time.monotonic())))
        except (EOFError, ConnectionError):
            return [frame for frame in frames if frame != {"type": "ack"}]
        except TimeoutError:
            raise AssertionError(self.server.describe(f"{what}: not closed, but answered {frames}")) from None

    def refused_in_session(self, peer: SeedPeer, what: str) -> list[Json]:
        """Read until the server closes; gives the inner messages that came before that."""
        inners = []
        deadline = time.monotonic() + SOON
        peer.auto_list = False
        peer.sent += 1000  # acks are not counted here
        try:
            while True:
                inners.append(peer.recv_inner(deadline - time.monotonic()))
        except (EOFError, ConnectionError):
            return inners
        except TimeoutError:
            raise AssertionError(self.server.describe(f"{what}: not closed, but answered {inners}")) from None

    def attack(self, data: bytes, sock: socket.socket) -> None:
        """Send, whether or not the server closes in the middle of it."""
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
