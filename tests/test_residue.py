"""What is left on disks: nothing of a conversation, a minute after its last acknowledgement."""

from __future__ import annotations

import base64
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tests.modern_processes import ModernConsole, ModernTestCase, RealServer
from tests.peers.modern_client import ModernClient

#: Seconds after the last acknowledgement.
MINUTE = 60.0
#: So many bytes of something are enough to be found by.
PIECE = 18


def encodings(secret: bytes) -> Iterator[bytes]:
    """Some bytes as they might be written."""
    yield secret
    yield secret[::-1]
    yield secret.hex().encode("ascii")
    yield secret.hex().upper().encode("ascii")
    for skipped in range(3):  # whatever stands before it
        part = secret[skipped:]
        part = part[: len(part) // 3 * 3]
        yield base64.b64encode(part)
        yield base64.urlsafe_b64encode(part)
    try:
        text = secret.decode("ascii")
    except UnicodeDecodeError:
        return
    yield text.encode("utf-16-le")
    yield text.encode("utf-16-be")


def pieces(data: bytes) -> Iterator[bytes]:
    """The beginning, the middle and the end."""
    for start in (0, (len(data) - PIECE) // 2, len(data) - PIECE):
        yield data[max(start, 0) :][:PIECE]


class Search:
    """What is looked for, each with a name."""

    def __init__(self) -> None:
        self._needles: dict[bytes, str] = {}

    def add(self, name: str, data: bytes) -> None:
        """Look for this, in pieces and encodings."""
        for piece in pieces(data):
            for needle in encodings(piece):
                self._needles[needle] = name

    @property
    def kinds(self) -> set[str]:
        """What is looked for."""
        return set(self._needles.values())

    def found(self, folders: Iterable[Path]) -> list[str]:
        """What is there, and where."""
        hits = []
        for folder in folders:
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    hits += [f"{name} in {path}" for name in self.within(path.read_bytes())]
        return sorted(set(hits))

    def within(self, data: bytes) -> set[str]:
        """What is in these bytes."""
        return {name for needle, name in self._needles.copy().items() if needle in data}


class Watched(ModernClient):
    """An independent client that notes every ciphertext and one-time key that goes through it.

    :ivar kept: a key that the server keeps.
    """

    search: Search
    kept = b""

    def _send(self, inner: dict[str, Any]) -> None:
        self._note(inner)
        super()._send(inner)

    def _take(self, inner: dict[str, Any]) -> None:
        self._note(inner)
        super()._take(inner)

    def _note(self, inner: dict[str, Any]) -> None:
        if inner["type"] in ("client-com", "client-connect"):
            for name, value in _octets(inner["data"]):
                if len(value) > PIECE and name in ("body", "header", "sealed", "message"):
                    self.search.add(f"ciphertext ({inner['type']} {name})", value)
        elif inner["type"] == "bundle":
            self.kept = inner["data"]["bundle"]["sign"]
            for name, value in _octets(inner["data"].get("one_time_key") or inner["data"].get("one-time-key") or {}):
                if len(value) >= 32:
                    self.search.add(f"one-time key ({name})", value)


def _octets(value: object, name: str = "") -> Iterator[tuple[str, bytes]]:
    """Every byte string in a structure, with the key that it stands under."""
    if isinstance(value, bytes):
        yield name, value
    elif isinstance(value, dict):
        for key, inside in value.items():
            yield from _octets(inside, str(key))
    elif isinstance(value, list | tuple):
        for inside in value:
            yield from _octets(inside, name)


class ResidueTests(ModernTestCase):
    """A conversation with somebody who is away at first."""

    def test_nothing_is_left(self) -> None:
        """Texts, ciphertexts and used one-time keys are nowhere on the disks, nor in what was logged."""
        search = Search()
        server = self.real_server()
        bob = self.console(server.link(), "bob")
        bob_id = bob.id
        time.sleep(1)  # it publishes
        bob.end_input()
        self.assertEqual(bob.wait_exit(), 0)

        ann = Watched(server.link(), "ann", timeout=self.patience)
        ann.search = search
        ann.connect(10)
        self.addCleanup(ann.close)
        texts = [
            f"the secret of number {number} is safe here {number * 7919}" for number in range(15)
        ]  # a stranger may send 20
        for text in texts:
            search.add("plaintext", text.encode("ascii"))
            ann.send(bob_id, text)
        ann.wait_accepted()
        folders = [self.place.home, self.place.cwd]
        self.assertGreater(len(search.kinds), 3, search.kinds)
        self.check_search(ann.kept, folders)

        bob = self.keep(ModernConsole(self.place, "", "bob"))
        bob.ready()
        bob.take_many(len(texts), "message")
        answers = [f"an answer that nobody else may read {number * 104729}" for number in range(20)]
        for number, text in enumerate(answers):
            search.add("plaintext", text.encode("ascii"))
            bob.do("send", to=ann.id, text=text, ref=number)
        for number in range(len(answers)):
            bob.take("state", state="delivered", ref=number)
        ann.wait_accepted()
        last = time.monotonic()
        while hits := search.found(folders):
            self.assertLess(time.monotonic() - last, MINUTE, hits)
            time.sleep(3)
        for process in (server, bob):
            self.assertEqual(search.within("\n".join(process.err).encode("utf-8")), set())
        self.check_is_alive(server, bob, ann)

    def check_search(self, kept: bytes, folders: list[Path]) -> None:
        """What has to be on the disk is found there; messages that wait are on it, too, but masked."""
        control = Search()
        control.add("a key that is kept", kept)
        self.assertNotEqual(control.found(folders), [])

    def check_is_alive(self, server: RealServer, bob: ModernConsole, ann: ModernClient) -> None:
        """It is not that everything has ended."""
        ann.send(bob.id, "still there?")
        bob.take("message", text="still there?")
        server.check_log()
