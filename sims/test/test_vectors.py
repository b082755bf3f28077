"""The runner of test vectors: the captured session holds, and no value of it can be changed without being noticed."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from sims import vectors

SEED_A = Path(__file__).parent / "vectors" / "seed-a.json"

#: The last keys of the leaves that are free text: what people note beside the values.
FREE_TEXT = frozenset({"title", "captured_from", "use", "note", "action"})
#: Who is meant, and when: the values that another one of the file could stand in for.
REFERENCES = frozenset(
    {
        *("from", "to", "actor", "owner", "type", "phase", "inner_type", "inner_phase", "before_message", "salt_is"),
        *("key", "initiator_key", "responder_key", "sender_new_key", "receiver_last_key"),
    }
)

Place = tuple[str | int, ...]


def load() -> dict[str, Any]:
    """A fresh copy of the captured session."""
    document: dict[str, Any] = json.loads(SEED_A.read_bytes())
    return document


def leaves(value: object, path: Place = ()) -> Iterator[Place]:
    """Where every value is that holds no other."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from leaves(inner, (*path, number))
    else:
        yield path


def at(document: Any, path: Place) -> Any:
    """What is at a place."""
    for key in path:
        document = document[key]
    return document


def another(value: str | int, where: float) -> str | int:
    """A value that differs in one character of the same kind, so far into it; or a number by one."""
    if isinstance(value, int):
        return value + 1
    index = int(where * (len(value) - 1))
    char = value[index]
    for first, last in ("09", "af", "gz", "AZ"):
        if first <= char <= last:
            return value[:index] + (chr(ord(char) + 1) if char < last else first) + value[index + 1 :]
    return f"{value[:index]}#{value[index + 1 :]}"


class _Changes(SynchronousTestCase):
    """Changes a value in place and puts it back, which is much faster than a copy for each."""

    def setUp(self) -> None:
        self.document = load()

    def differences(self, path: Place, value: object) -> list[str]:
        """What the runner says when this value stands there."""
        holder, key = at(self.document, path[:-1]), path[-1]
        kept = holder[key]
        holder[key] = value
        try:
            return vectors.check(self.document).differences
        finally:
            holder[key] = kept

    def assert_noticed(self, path: Place, value: object) -> None:
        """The runner refuses this value, in whole lines."""
        found = self.differences(path, value)
        self.assertTrue(found, f"{path} = {value!r} goes unnoticed")
        self.assertFalse([line for line in found if not line.isprintable()])


class LeafTests(_Changes):
    """Every leaf of the file is compared with something.

    :cvar every: of so many leaves one is tried here; ``tests/test_vectors_whole.py`` tries them all.
    :cvar step: of so many values of another type one, in turn; there, all of them.
    """

    every = 32
    step = 3

    def test_holds(self) -> None:
        report = vectors.check(self.document)
        self.assertEqual(report.differences, [])
        self.assertGreater(report.compared, 1000)

    def test_every_leaf(self) -> None:
        """One character, somewhere else in each."""
        paths = [path for path in leaves(self.document) if path[-1] not in FREE_TEXT]
        self.assertGreater(len(paths), 1100)
        for number, path in [*enumerate(paths)][:: self.every]:
            self.assert_noticed(path, another(at(self.document, path), number % 11 / 10))

    def test_references(self) -> None:
        """What is right in one place is noticed in another."""
        found: dict[str, list[object]] = {}
        paths = [path for path in leaves(self.document) if path[-1] in REFERENCES]
        for path in paths:
            values = found.setdefault("end" if path[-1] in ("from", "to") else str(path[-1]), [])
            if at(self.document, path) not in values:
                values.append(at(self.document, path))
        for path in paths[:: self.every]:
            value, values = at(self.document, path), found["end" if path[-1] in ("from", "to") else str(path[-1])]
            other = values[(values.index(value) + 1) % len(values)]
            if other != value:
                self.assert_noticed(path, other)

    def test_free_text(self) -> None:
        """What is noted beside the values may say anything."""
        for path in list(leaves(self.document)):
            if path[-1] in FREE_TEXT:
                at(self.document, path[:-1])[path[-1]] = "something else"
        self.assertEqual(vectors.check(self.document).differences, [])

    def test_other_types(self) -> None:
        """Nothing of another type breaks the runner; a kind of place is tried once, whatever the message."""
        shapes: dict[tuple[object, ...], Place] = {}
        for path in leaves(self.document):
            for length in range(1, len(path) + 1):
                named = path[0] in ("keys", "clients")
                shape = tuple("#" if named and index == 1 else key for index, key in enumerate(path[:length]))
                shapes.setdefault(tuple("#" if isinstance(key, int) else key for key in shape), path[:length])
        self.assertGreater(len(shapes), 60)
        others: tuple[object, ...] = (None, True, 10**30, "", [[]], {"a": {}})
        for number, path in enumerate(shapes.values()):
            if path[-1] not in FREE_TEXT:
                for value in others[number % self.step :: self.step]:
                    self.assert_noticed(path, value)

    def test_missing(self) -> None:
        """A key that is not there is said to be missing."""
        for path in (
            ("keys", "alice-01", "owner"),
            ("messages", 6, "secure", "iv"),
            ("messages", 33, "com"),
            ("hkdf",),
        ):
            document = load()
            del at(document, path[:-1])[path[-1]]
            text = "\n".join(vectors.check(document).differences)
            self.assertIn(str(path[-1]), text)
            self.assertTrue("missing" in text or "got nothing" in text, text)

    def test_where(self) -> None:
        """A line says where, and shows the place where the two values part."""
        secret = self.document["messages"][6]["secure"]["master_secret"]
        wrong = secret[:40] + ("0" if secret[40] != "0" else "1") + secret[41:]
        (line,) = self.differences(("messages", 6, "secure", "master_secret"), wrong)
        self.assertTrue(line.startswith("message 7, secure.master_secret: expected ..."), line)
        self.assertIn(secret[36:50], line)
        self.assertIn(wrong[36:50], line)
        self.assertLess(len(line), 160)


class FrameTests(_Changes):
    """Nothing in a frame goes unread, whether a MAC covers it or not."""

    def assert_frame(self, number: int, old: str, new: str) -> None:
        frame = self.document["messages"][number - 1]["frame"]
        self.assertIn(old, frame)
        self.assert_noticed(("messages", number - 1, "frame"), frame.replace(old, new, 1))

    def test_clear(self) -> None:
        self.assert_frame(1, '"data": {}', '"data": {"a": 1}')
        self.assert_frame(1, '"data": {}', '"data": {}, "more": 0')
        self.assert_frame(1, "11111", "22222")
        self.assert_frame(1, "11111", "11111.0")
        self.assert_frame(1, '"alice"', '"bob"')
        self.assert_frame(1, "ECDHE-AES256_CTR-SHA384", "ECDHE-AES256_OFB-SHA384")
        self.assert_frame(1, '"ECDHE-AES128_CTR-SHA256", "ECDHE-AES256_CTR-SHA384"', '"ECDHE-AES256_CTR-SHA384"')
        self.assert_frame(2, "{", "{ ")
        self.assert_frame(3, "ECDHE-AES128_CTR-SHA256", "ECDHE-AES256_CTR-SHA384")
        self.assert_frame(4, "ECDHE-AES128_CTR-SHA256", "ECDHE-AES256_CTR-SHA384")
        self.assert_frame(6, '"phase": 4', '"phase": 3')

    def test_order(self) -> None:
        """Two frames that changed places, with all that belongs to them, are out of order as a session."""
        messages = self.document["messages"]
        messages[18:21], messages[21:24] = messages[21:24], messages[18:21]
        for number, message in enumerate(messages, 1):
            message["n"] = number
        self.assertTrue(vectors.check(self.document).differences)


class CommandTests(SynchronousTestCase):
    """``python -m sims.vectors``."""

    def run_on(self, *paths: str | Path) -> tuple[int, list[str]]:
        output = io.StringIO()
        self.patch(sys, "stdout", output)
        status = vectors.main([str(path) for path in paths])
        return status, output.getvalue().splitlines()

    def file(self, data: bytes) -> str:
        path = str(self.mktemp())
        Path(path).write_bytes(data)
        return path

    def test_holds(self) -> None:
        status, lines = self.run_on(SEED_A)
        self.assertEqual(status, 0)
        self.assertEqual(len(lines), 1)
        self.assertRegex(lines[0], r"seed-a\.json: [0-9]{4} values compared, all hold$")

    def test_several(self) -> None:
        """All files are checked, whatever comes of the first."""
        document = load()
        document["messages"][6]["secure"]["mac"] = "00" * 32
        wrong = self.file(json.dumps(document).encode())
        status, lines = self.run_on(wrong, SEED_A)
        self.assertEqual(status, 1)
        self.assertEqual(len(lines), 3)
        self.assertTrue(lines[0].startswith(f"{wrong}: message 7, secure.mac: expected"), lines[0])
        self.assertIn("1 difference", lines[1])
        self.assertIn("all hold", lines[2])
        self.assertEqual(self.run_on(SEED_A, wrong)[0], 1)

    def test_unusable(self) -> None:
        """Whatever the file is, it gets one clear line, then the summary."""
        whole = SEED_A.read_bytes()
        unusable = {
            b"": "not JSON",
            b"\xff": "not JSON",
            b"null": "not an object",
            b"[]": "not an object",
            b"{}": "no known format",
            b'{"a":1,"a":1}': "twice",
            b"[" * 100_000: "nested",
            b"9" * 10_000: "not JSON",
            whole[:-100]: "not JSON",
            b'{"messages": []}': "suite: missing",
            whole.replace(b'"clients": {', b'"clients": {"eve": "5",'): "clients.eve: not of the type int",
            whole.replace(b'"alice": 11111', b'"server": 11111'): "clients: ",
            whole.replace(b'"messages": [', b'"messages": {}, "rest": ['): "messages: not of the type list",
        }
        for data, text in unusable.items():
            status, lines = self.run_on(self.file(data))
            self.assertEqual((status, len(lines)), (1, 2), lines)
            self.assertIn(text, lines[0])

    def test_unreadable(self) -> None:
        for path in ("/nowhere/at/all", "/", "with\nnewline\udcff"):
            status, lines = self.run_on(path)
            self.assertEqual((status, len(lines)), (1, 2), lines)
            self.assertIn("cannot be read", lines[0])

    def test_keys(self) -> None:
        """Keys that are none, or of another kind, are said to be unusable, not more."""
        for pem in ("", "\u2602", "-----BEGIN PRIVATE KEY-----\nMC4=\n-----END PRIVATE KEY-----\n"):
            document = load()
            document["keys"]["server-01"]["private_key_pem"] = pem
            (line,) = vectors.check(document).differences
            self.assertIn("private_key_pem: not the PKCS #8 text of a secp384r1 key", line)
        document["keys"]["server-01"]["private_key_pem"] = document["keys"]["server-04"]["private_key_pem"]
        self.assertIn("the same as that of server-01", "\n".join(vectors.check(document).differences))

    def test_nothing_happens(self) -> None:
        """A transcript without messages proves nothing, and does not pass."""
        document = load()
        document["messages"], document["actions"] = [], []
        self.assertEqual(len(vectors.check(document).differences), 2)

    def test_help(self) -> None:
        self.patch(sys, "stdout", output := io.StringIO())
        self.assertEqual(self.assertRaises(SystemExit, vectors.main, ["--help"]).code, 0)
        self.assertIn("FILE", output.getvalue())
