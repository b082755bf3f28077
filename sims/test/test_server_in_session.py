"""What hostile clients may try in a session."""

from __future__ import annotations

import json
from typing import Any

from sims.server import limits
from sims.server.connection import State
from sims.test.clients import Raw
from sims.test.hostile import (
    CLOSED,
    SPEC,
    Act,
    Outcome,
    ServerTestCase,
    base64,
    flipped,
    forged,
    outcome,
    with_field,
)
from sims.transport import FRAME_TIMEOUT
from sims.wire import MAX_FRAME

MALFORMED: Outcome = (State.CLOSED, [("malformed", None)])
_SIZES = {"hash": 32, "iv": 16, "public_key": 215, "ciphertext": 4, "random": 32}


def _flip(part: str, name: str, position: int) -> Act:
    """One bit of a frame is another."""

    def act(raw: Raw) -> None:
        frame = raw.sealed({"type": "list"})
        frame[part][name] = flipped(frame[part][name], position)
        raw.send(frame)

    return act


class KeysTests(ServerTestCase):
    """A session with keys of secp384r1; the other tests have cheap ones."""

    real_keys = True

    def test_forgeries(self) -> None:
        self.meet(
            {
                "ciphertext": (_flip("payload", "ciphertext", 0), CLOSED),
                "key": (_flip("payload", "public_key", 100), MALFORMED),
                "key in its last line": (_flip("payload", "public_key", 180), MALFORMED),
                "end of the key": (_flip("payload", "public_key", -1), MALFORMED),
                "forged": (lambda raw: raw.send(forged(raw)), CLOSED),
                "not JSON": (lambda raw: raw.say(b"\xff{"), MALFORMED),
            },
            session=True,
        )


class InSessionTests(ServerTestCase):
    """What a client with a session may try."""

    def test_forgeries(self) -> None:
        def twice(raw: Raw) -> None:
            frame = raw.sealed({"type": "list"})
            raw.send(frame)
            raw.send(frame)

        def older(raw: Raw) -> None:
            first = raw.sealed({"type": "list"})
            raw.send(first)
            raw.say({"type": "list"})
            raw.send(first)

        self.meet(
            {
                # What is not authentic may be anybody's: it is not answered.
                "ciphertext": (_flip("payload", "ciphertext", 0), CLOSED),
                "end of the ciphertext": (_flip("payload", "ciphertext", -1), CLOSED),
                "hash": (_flip("sa-data", "hash", 0), CLOSED),
                "end of the hash": (_flip("sa-data", "hash", -1), CLOSED),
                "random": (_flip("sa-data", "random", 5), CLOSED),
                "replayed": (twice, CLOSED),
                "replayed later": (older, CLOSED),
                "forged": (lambda raw: raw.send(forged(raw)), CLOSED),
                # The format's MAC does not cover the iv: what it spoils is no message any more.
                "iv": (_flip("sa-data", "iv", 0), MALFORMED),
                "end of the iv": (_flip("sa-data", "iv", -1), MALFORMED),
                "key": (_flip("payload", "public_key", 100), MALFORMED),
                "not JSON": (lambda raw: raw.say(b"\xff{"), MALFORMED),
                "not an object": (lambda raw: raw.say(b"[]"), MALFORMED),
                "empty": (lambda raw: raw.say(b""), MALFORMED),
                "NaN": (lambda raw: raw.say(b'{"type":NaN}'), MALFORMED),
                "nested": (lambda raw: raw.say(b"[" * 20_000 + b"]" * 20_000), MALFORMED),
                "a frame of brackets": (lambda raw: raw.send(b"[" * 50_000), MALFORMED),
                "an iv of 15 bytes": (lambda raw: raw.send(with_field(raw, "iv", bytes(15))), MALFORMED),
                "a random of 33 bytes": (lambda raw: raw.send(with_field(raw, "random", bytes(33))), MALFORMED),
                "a hash of 31 bytes": (lambda raw: raw.send(with_field(raw, "hash", bytes(31))), MALFORMED),
                "a hash of another spec": (lambda raw: raw.send(with_field(raw, "hash", bytes(48))), CLOSED),
                "no payload": (lambda raw: raw.send({**raw.sealed({}), "payload": None}), MALFORMED),
                "greets again": (lambda raw: raw.send(raw.greeting()), MALFORMED),
            },
            session=True,
        )

    def test_wrong_inside(self) -> None:
        """What is authentic and wrong is answered, with the dst as it came, and the session goes on."""

        def told(code: str, dst: object = None) -> Outcome:
            return State.OPEN, [(code, dst)]

        def say(kind: str, **fields: Any) -> Act:
            return lambda raw: raw.say({"type": kind, **fields})

        com = json.loads(json.dumps({name: base64(bytes(size)) for name, size in _SIZES.items()}))
        cases: dict[str, tuple[Act, Outcome]] = {
            "no type": (lambda raw: raw.say({}), told("malformed")),
            "unknown type": (say("hello", src=666, dst="1"), told("malformed", "1")),
            "type of a list": (say("connect"), told("malformed")),
            "phase 5": (say("client-connect", src=666, dst="1", phase=5), told("malformed", "1")),
            "phase true": (say("client-connect", src=666, dst=1, phase=True, ciphers=[]), told("malformed", 1)),
            "no data": (say("client-com", src=666, dst="1"), told("malformed", "1")),
            "no src": (say("client-disconnect", dst="1"), told("malformed", "1")),
            "no dst": (say("client-disconnect", src=666), told("malformed")),
            "dst that is no number": (say("client-disconnect", src=666, dst="bob"), told("malformed", "bob")),
            "dst of a list": (say("client-disconnect", src=666, dst=[1]), told("malformed")),
            "dst true": (say("client-disconnect", src=666, dst=True), told("malformed")),
            "dst out of range": (say("client-disconnect", src=666, dst=10**18), told("malformed", 10**18)),
            "dst far out of range": (say("client-disconnect", src=666, dst=10**300), told("malformed")),
            "dst that is long": (say("client-disconnect", src=666, dst="1" * 129), told("malformed")),
            "offer that is long": (
                say("client-connect", src=666, dst="1", phase=1, ciphers=["x"] * 33, data={}),
                told("malformed", "1"),
            ),
            "error without src": (say("error", code="internal", dst=1), told("malformed", 1)),
            "error of nobody": (say("error", code="internal", src=None, dst=1), told("malformed", 1)),
            "error for nobody": (say("error", code="internal"), told("malformed")),
        }
        for dst in (99, "99", "099", -7, "-7", 0):
            for kind, fields in {
                "client-disconnect": {},
                "ack": {"data": None},
                "client-com": {"data": com},
                "client-connect": {"phase": 1, "ciphers": [SPEC]},
                "error": {"code": "policy"},
            }.items():
                act = say(kind, src=666, dst=dst, **fields)
                cases[f"{kind} to {dst!r}"] = (act, told("unknown-recipient", dst))
        for src in (1, "1", 667, "0667"):
            for kind, fields in {
                "client-disconnect": {},
                "ack": {"data": None},
                "client-com": {"data": com},
                "client-connect": {"phase": 1, "ciphers": [SPEC]},
                "error": {"code": "policy"},
            }.items():
                cases[f"{kind} from {src!r}"] = (say(kind, src=src, dst=2, **fields), told("not-sender", 2))
        raw = Raw(self.network).handshake()
        for name, (act, expected) in cases.items():
            act(raw)
            self.assertEqual(outcome(raw), expected, name)
            self.assertEqual(self.flushLoggedErrors(), [], name)
        self.assertEqual((self.alice.happened[2:], self.bob.happened[2:]), ([], []))
        self.check_members("wrong inside", raw.id)
        self.check_others("wrong inside")

    def test_no_client_speaks_for_the_server(self) -> None:
        """A list or an error that a client sends to another does not arrive as the server's."""
        victim, raw = Raw(self.network, "victim", 5).handshake(), Raw(self.network).handshake()
        raw.say({"type": "list", "data": [{"name": "bob", "id": 666}], "src": 666, "dst": 5})
        self.assertEqual([inner["type"] for inner in raw.heard()], ["list"])  # to him who asked, and true
        raw.say({"type": "error", "code": "unknown-recipient", "dst": 5})
        self.assertEqual(outcome(raw)[1], [("malformed", 5)])
        self.assertEqual(victim.heard(), [])
        # With its src it arrives as what it is: his.
        raw.say({"type": "error", "code": "unknown-recipient", "src": 666, "dst": 5})
        self.assertEqual(victim.heard(), [{"type": "error", "code": "unknown-recipient", "src": 666, "dst": 5}])
        self.check_others("spoofed")

    def test_relayed_is_encoded_anew(self) -> None:
        """What arrives is what the type says, whatever else was sent along."""
        victim, raw = Raw(self.network, "victim", 5).handshake(), Raw(self.network).handshake()
        raw.say(b' { "dst" : "5", "src":"666","type":"client-disconnect","data":{}, "name":"bob", "level":{"x":[1]} }')
        self.assertEqual(victim.heard(), [{"type": "client-disconnect", "src": "666", "dst": "5", "data": {}}])

    def test_half_a_frame(self) -> None:
        raw = Raw(self.network).handshake()
        raw.stream.write(b'{"type":')
        for _ in range(2):
            self.network.run_for(FRAME_TIMEOUT / 3)
            raw.stream.write(b" ")  # more of it does not give it more time
        self.network.run_for(FRAME_TIMEOUT / 3 - 0.01)
        self.assertEqual(outcome(raw), (State.OPEN, []))
        self.network.run_for(0.02)
        self.assertEqual(outcome(raw), (State.CLOSED, [("unavailable", None)]))
        self.check_members("half a frame")
        self.check_others("half a frame")

    def test_frames_that_end_in_time(self) -> None:
        """The time that a frame may take begins with that frame."""
        raw = Raw(self.network).handshake()
        for _ in range(3):
            data = json.dumps(raw.sealed({"type": "list"})).encode() + b"\n\n"
            raw.stream.write(data[:100])
            self.network.run_for(1)
            raw.stream.write(data[100:-1])
            self.network.run_for(FRAME_TIMEOUT - 2)
            raw.stream.write(data[-1:])
            self.network.settle()
        self.network.run_for(2 * FRAME_TIMEOUT)
        self.assertEqual([inner["type"] for inner in raw.heard()], ["list"] * 3)
        self.assertIs(raw.server_end.state, State.OPEN)

    def test_too_long(self) -> None:
        raw = Raw(self.network).handshake()
        frame = json.dumps(raw.sealed({"type": "list"})).encode()
        raw.send(frame[:-1] + b" " * (MAX_FRAME - len(frame)) + b"}")
        self.assertEqual([inner["type"] for inner in raw.heard()], ["list"])
        raw.send(b"x" * (MAX_FRAME + 1))
        self.assertEqual(outcome(raw), (State.CLOSED, [("too-large", None)]))
        self.check_others("too long")

    def test_id_in_use(self) -> None:
        """An id stays with whoever has it; when he has left, it is free."""
        raw = Raw(self.network).handshake()
        other = Raw(self.network)
        other.send(other.greeting())
        self.assertEqual(outcome(other), CLOSED)
        raw.say({"type": "list"})
        self.assertEqual(len(raw.heard()), 1)
        raw.stream.loseConnection()
        self.network.settle()
        Raw(self.network).handshake()
        self.check_members("id in use", raw.id)

    def test_keys_move_on(self) -> None:
        """Who sends so many frames without being sent any is sent a list."""
        raw, other = Raw(self.network).handshake(), Raw(self.network, "other", 5).handshake()
        for _ in range(limits.TURN_AFTER - 1):
            raw.say({"type": "ack", "src": 666, "dst": 5, "data": None})
        self.assertEqual(raw.heard(), [])
        raw.say({"type": "ack", "src": 666, "dst": 5, "data": None})
        self.assertEqual([inner["type"] for inner in raw.heard()], ["list"])
        self.assertEqual(len(other.heard()), limits.TURN_AFTER)
        raw.say({"type": "ack", "src": 666, "dst": 5, "data": None})
        self.assertEqual(raw.heard(), [])  # it begins to count anew
