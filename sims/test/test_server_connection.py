"""The server's end of a connection: its states, and what hostile clients may try."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, cast

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from twisted.trial.unittest import SynchronousTestCase

from sims import messages
from sims.crypto.seed import Keys
from sims.errors import Code
from sims.server import limits
from sims.server.connection import SeedConnection, State
from sims.strictjson import Digest, Octets, Octets16, Octets32, Pem
from sims.test.clients import Driven, Raw
from sims.test.network import Network, Stream, cut
from sims.transport import FRAME_TIMEOUT, LINGER
from sims.wire import MAX_FRAME, MAX_FRAME_BEFORE_SESSION

Act = Callable[[Raw], object]
#: The state of the connection, and what was told inside the session: a code and the dst.
Outcome = tuple[State, list[tuple[str, object]]]

CLOSED: Outcome = (State.CLOSED, [])
SPEC = "ECDHE-AES128_CTR-SHA256"


def fresh_keys(raw: Raw) -> Keys:
    """A key and a random, as phase 3 carries them."""
    public = raw.network.entropy.p384().public_key()
    return Keys(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), raw.network.entropy.octets(32))


def forged(raw: Raw) -> messages.Secure:
    """A secure frame that is well made, and that nobody's keys open."""
    box = messages.SealedBox(
        hash=Digest(bytes(32)),
        iv=Octets16(bytes(16)),
        public_key=Pem(fresh_keys(raw).public_key),
        ciphertext=Octets(b"nothing"),
        random=Octets32(bytes(32)),
    )
    return messages.Secure.of(box)


def outcome(raw: Raw) -> Outcome:
    """What has become of a connection."""
    told = [inner for inner in raw.heard() if inner["type"] == "error"]
    return raw.server_end.state, [(error["code"], error.get("dst")) for error in told]


class TableTests(SynchronousTestCase):
    """Every state with every input: the state after it, and the frames that came back."""

    CONNECT_4 = {"type": "connect", "phase": 4, "ciphers": SPEC, "data": {"public_key": "", "server_random": ""}}

    INPUTS: dict[str, Act] = {
        "ack": lambda raw: raw.send(messages.Ack()),
        "connect 1": lambda raw: raw.send(raw.greeting()),
        "connect 2": lambda raw: raw.send(messages.Connect2(ciphers=SPEC)),
        "connect 3": lambda raw: raw.send(raw.keying(fresh_keys(raw))),
        "connect 4": lambda raw: raw.send(TableTests.CONNECT_4),
        "secure": lambda raw: raw.say({"type": "list"}) if raw.session else raw.send(forged(raw)),
        "forged": lambda raw: raw.send(forged(raw)),
        "unknown": lambda raw: raw.send({"type": "hello"}),
        "garbage": lambda raw: raw.send(b"garbage"),
        "long": lambda raw: raw.send(b"x" * (MAX_FRAME + 1)),
        "lost": lambda raw: cut(raw.server_end),
        "close": lambda raw: raw.server_end.close(),
    }

    STATES: dict[State, Act] = {
        State.GREETING: lambda raw: None,
        State.KEYING: lambda raw: raw.send(raw.greeting()),
        State.OPEN: lambda raw: raw.handshake(),
        State.CLOSED: lambda raw: raw.send(b"[]"),
    }

    TABLE: dict[tuple[State, str], tuple[State, list[str]]] = {
        (State.GREETING, "ack"): (State.GREETING, []),
        (State.GREETING, "connect 1"): (State.KEYING, ["ack", "connect 2"]),
        (State.KEYING, "ack"): (State.KEYING, []),
        (State.KEYING, "connect 3"): (State.OPEN, ["ack", "connect 4"]),
        (State.OPEN, "ack"): (State.OPEN, []),
        (State.OPEN, "secure"): (State.OPEN, ["ack", "secure"]),
        # What is refused in a session is told in the session, unless somebody else may have sent it.
        (State.OPEN, "connect 1"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "connect 2"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "connect 3"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "connect 4"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "unknown"): (State.CLOSED, ["ack", "secure"]),
        (State.OPEN, "garbage"): (State.CLOSED, ["secure"]),
        (State.OPEN, "long"): (State.CLOSED, ["secure"]),
        (State.OPEN, "forged"): (State.CLOSED, ["ack"]),
    }
    #: Before there is a session, a closing without a word. Every object is acknowledged, whatever is wrong with it.
    OBJECTS = {"connect 1", "connect 2", "connect 3", "connect 4", "secure", "forged", "unknown"}

    def expected(self, state: State, name: str) -> tuple[State, list[str]]:
        """What the table says."""
        if state is State.CLOSED:
            return State.CLOSED, []
        return self.TABLE.get((state, name), (State.CLOSED, ["ack"] if name in self.OBJECTS else []))

    def test_table(self) -> None:
        for state, bring in self.STATES.items():
            for name, give in self.INPUTS.items():
                network = Network()
                raw = Raw(network)
                bring(raw)
                self.assertIs(raw.server_end.state, state)
                seen = len(raw.kinds())
                give(raw)
                network.settle()
                after, kinds = self.expected(state, name)
                self.assertEqual((raw.server_end.state, raw.kinds()[seen:]), (after, kinds), f"{name} in {state}")
                self.assertEqual(network.relay.is_here(raw.id), after is State.OPEN, f"{name} in {state}")
                self.assertEqual(self.flushLoggedErrors(), [], f"{name} in {state}")


class ServerTestCase(SynchronousTestCase):
    """A server with two honest clients in conversation."""

    def setUp(self) -> None:
        self.network = Network()
        self.alice = Driven(self.network, "alice", 1).dial()
        self.bob = Driven(self.network, "bob", 2).dial()
        self.network.settle()
        self.sent = 0

    def check_others(self, name: str) -> None:
        """The honest ones still talk, in both directions, and nothing has gone wrong on the server."""
        self.sent += 1
        self.alice.do(lambda messenger: messenger.send("2", f"{name} {self.sent}"))
        self.network.settle()
        self.bob.do(lambda messenger: messenger.send("1", f"{name} {self.sent}"))
        self.network.settle()
        self.assertEqual(self.bob.texts(1)[-1:], [f"{name} {self.sent}"])
        self.assertEqual(self.alice.texts(2)[-1:], [f"{name} {self.sent}"])
        self.assertEqual((self.alice.problems(), self.bob.problems()), ([], []), name)
        self.assertEqual(self.flushLoggedErrors(), [], name)

    def check_members(self, name: str, *others: int) -> None:
        """Who is on the relay, and on the server at all."""
        here = {1, 2, *others}
        self.assertEqual({entry.id for entry in self.network.relay.entries(self.alice.server_end)}, here, name)
        self.assertEqual({end.id for end in self.network.server.connections}, here, name)

    def meet(self, cases: dict[str, tuple[Act, Outcome]], *, greeted: bool = False, session: bool = False) -> None:
        """Have a client of its own try each of these."""
        for name, (act, expected) in cases.items():
            raw = Raw(self.network)
            if greeted:
                raw.send(raw.greeting())
            if session:
                raw.handshake()
            act(raw)
            self.network.settle()
            found = outcome(raw)
            self.assertEqual(found, expected, name)
            if expected[0] is State.OPEN:
                self.check_members(name, raw.id)
                raw.stream.loseConnection()
                self.network.settle()
            self.assertTrue(raw.closed, name)
            self.check_members(name)
            self.check_others(name)


class BeforeSessionTests(ServerTestCase):
    """Whatever is wrong before there is a session ends it, without a word."""

    def frames(self, *frames: bytes | dict[str, Any] | messages.Message) -> Act:
        """Send these."""

        def act(raw: Raw) -> None:
            for frame in frames:
                raw.send(frame)

        return act

    def test_garbage(self) -> None:
        cases: dict[str, tuple[Act, Outcome]] = {}
        for frame in (
            *(b"", b"\x00\xff\xfe", b"hello", b"[]", b"1", b'"ack"', b"null", b"true", b"{", b"{}", b"{]"),
            *(b'{"type":1}', b'{"type":null}', b'{"type":["connect"]}', b'{"type":{"connect":1}}', b'{"type":"ack",}'),
            *(b'{"type":"connect","type":"connect"}', b'{"type":"ack"}x', b"\xef\xbb\xbf{}", b'{"type":"\\ud800"}'),
            *(b'{"type":"connect","phase":NaN}', b'{"type":"connect","phase":1,"id":-Infinity}'),
            b"[" * 4096 + b"]" * 4096,
            b'{"a":' * 1600,
        ):
            cases[repr(frame[:60])] = (self.frames(frame), CLOSED)
        self.meet(cases)

    def test_connect_1(self) -> None:
        good = {"type": "connect", "phase": 1, "name": "m", "id": 666, "ciphers": [SPEC], "data": {}}
        changes: list[dict[str, Any]] = [
            *({"phase": phase} for phase in (0, 5, "1", 1.5, True, None, [1])),
            *({"name": name} for name in (None, 1, [], "n" * 129)),
            *({"id": number} for number in ("666", 666.5, None, True, 10**18, -(10**18), 10**400)),
            *({"ciphers": offer} for offer in (SPEC, None, {}, [1], [None], [SPEC] * 33, ["x" * 65])),
            # no common spec
            *({"ciphers": offer} for offer in ([], ["ECDHE-AES128_CBC-SHA256"], [SPEC.lower()], [SPEC + " "])),
            {"data": 1},
        ]
        cases = {f"{change}"[:60]: (self.frames({**good, **change}), CLOSED) for change in changes}
        for field in ("type", "phase", "name", "id", "ciphers"):
            missing = {key: value for key, value in good.items() if key != field}
            cases[f"no {field}"] = (self.frames(missing), CLOSED)
        cases["twice"] = (self.frames(good, good), CLOSED)
        cases["id in use"] = (self.frames({**good, "id": 1}), CLOSED)
        self.meet(cases)
        # The same without a change is taken.
        self.meet({"good": (lambda raw: (self.frames(good)(raw), raw.stream.loseConnection()), CLOSED)})

    def test_connect_3(self) -> None:
        def change(**fields: Any) -> Act:
            def act(raw: Raw) -> None:
                keys = fresh_keys(raw)
                frame: dict[str, Any] = {
                    **{"type": "connect", "phase": 3, "name": raw.name, "id": raw.id, "ciphers": SPEC},
                    "data": {"public_key": _base64(keys.public_key), "client_random": _base64(keys.random)},
                }
                for name, value in fields.items():
                    (frame["data"] if name in frame["data"] else frame)[name] = value
                raw.send(frame)

            return act

        p256 = ec.generate_private_key(ec.SECP256R1()).public_key()
        other_curve = p256.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        pem = fresh_keys(Raw(self.network)).public_key
        for connection in list(self.network.server.connections):
            if connection.state is State.GREETING:
                connection.abort()
        self.network.settle()
        cases: dict[str, tuple[Act, Outcome]] = {
            "another name": (change(name="eve"), CLOSED),
            "another id": (change(id=667), CLOSED),
            "somebody else's id": (change(id=1), CLOSED),
            "another spec": (change(ciphers="ECDHE-AES256_CTR-SHA384"), CLOSED),
            "unknown spec": (change(ciphers="NULL"), CLOSED),
            "no data": (change(data={}), CLOSED),
            "key on another curve": (change(public_key=_base64(other_curve)), CLOSED),
            "the same, as long as ours": (change(public_key=_base64(_padded(other_curve))), CLOSED),
            "key not on the curve": (change(public_key=_base64(_moved(pem))), CLOSED),
            "key of another algorithm": (change(public_key=_base64(pem.replace(b"MHYw", b"MHYx"))), CLOSED),
            "key without its newline": (change(public_key=_base64(pem[:-1])), CLOSED),
            "key not in base64": (change(public_key="!" * 288), CLOSED),
            "key that is no text": (change(public_key=7), CLOSED),
        }
        for size in (0, 31, 33, 64):
            cases[f"random of {size}"] = (change(client_random=_base64(bytes(size))), CLOSED)
        self.meet(cases, greeted=True)

    def test_out_of_order(self) -> None:
        def secure(raw: Raw) -> None:
            raw.send(forged(raw))

        self.meet(
            {
                "phase 3 first": (lambda raw: raw.send(raw.keying(fresh_keys(raw))), CLOSED),
                "phase 2": (self.frames(messages.Connect2(ciphers=SPEC)), CLOSED),
                "secure first": (secure, CLOSED),
                "list in the clear": (self.frames({"type": "list"}), CLOSED),
            }
        )
        self.meet({"secure": (secure, CLOSED), "list": (self.frames({"type": "list"}), CLOSED)}, greeted=True)

    def test_too_long(self) -> None:
        whole = b'{"type":"ack","x":"' + b"x" * (MAX_FRAME_BEFORE_SESSION - 21) + b'"}'
        self.assertEqual(len(whole), MAX_FRAME_BEFORE_SESSION)
        raw = Raw(self.network)
        raw.send(whole)
        self.assertEqual(outcome(raw), (State.GREETING, []))
        raw.send(whole + b" ")
        self.assertEqual(outcome(raw), CLOSED)
        self.check_others("too long")

    def test_without_an_end(self) -> None:
        raw = Raw(self.network)
        most = 0

        def watched() -> bool:
            nonlocal most
            most = max(most, len(raw.server_end._buffer))
            return raw.server_end not in self.network.server.connections

        raw.stream.write(b"x" * 4 * 1024 * 1024)
        self.network.run_until(watched)
        self.assertLessEqual(most, MAX_FRAME_BEFORE_SESSION + 64 * 1024)
        self.check_members("4 MiB")
        self.check_others("4 MiB")

    def test_handshake_too_slow(self) -> None:
        def half(raw: Raw) -> None:
            raw.stream.write(b'{"type":"connect"')

        for name, act in {
            "nothing": lambda raw: None,
            "greeted": lambda raw: raw.send(raw.greeting()),
            "half a frame": half,
            "acks only": lambda raw: [raw.send(messages.Ack()) for _ in range(100)],
        }.items():
            raw = Raw(self.network)
            act(raw)
            self.network.run_for(limits.HANDSHAKE_TIMEOUT - 0.01)
            self.assertFalse(raw.closed, name)
            self.network.run_for(0.02)
            self.assertTrue(raw.closed, name)
            self.check_members(name)
            self.check_others(name)

    def test_id_taken_between_the_phases(self) -> None:
        first, second = Raw(self.network), Raw(self.network)
        first.send(first.greeting())
        second.handshake()
        first.send(first.keying(fresh_keys(first)))
        self.assertEqual(outcome(first), CLOSED)
        second.say({"type": "list"})
        self.assertEqual([inner["type"] for inner in second.heard()], ["list"])
        self.check_members("second", second.id)
        self.check_others("id taken")

    def test_vanishes(self) -> None:
        def half(raw: Raw) -> None:
            raw.stream.write(b'{"type":"conn')
            self.network.settle()

        vanish: list[Act] = [
            lambda raw: cut(raw.server_end),
            lambda raw: raw.stream.abortConnection(),
            lambda raw: raw.stream.loseConnection(),
        ]
        for number, how in enumerate(vanish):
            for name, act in {
                "at once": lambda raw: None,
                "greeted": lambda raw: raw.send(raw.greeting()),
                "in a frame": half,
                "in the session": lambda raw: raw.handshake(),
                "in a frame of the session": lambda raw: half(raw.handshake()),
            }.items():
                raw = Raw(self.network)
                act(raw)
                how(raw)
                self.network.settle()
                self.check_members(f"{name} {number}")
            self.check_others(f"{number}")
        self.assertEqual([call for call in self.network.clock.getDelayedCalls() if call.getTime() > 10], [])


class InSessionTests(ServerTestCase):
    """What a client with a session may try."""

    def test_forgeries(self) -> None:
        def flip(part: str, name: str, position: int) -> Act:
            def act(raw: Raw) -> None:
                frame = raw.sealed({"type": "list"})
                frame[part][name] = _flipped(frame[part][name], position)
                raw.send(frame)

            return act

        def twice(raw: Raw) -> None:
            frame = raw.sealed({"type": "list"})
            raw.send(frame)
            raw.send(frame)

        def older(raw: Raw) -> None:
            first = raw.sealed({"type": "list"})
            raw.send(first)
            raw.say({"type": "list"})
            raw.send(first)

        malformed: Outcome = (State.CLOSED, [("malformed", None)])
        self.meet(
            {
                # What is not authentic may be anybody's: it is not answered.
                "ciphertext": (flip("payload", "ciphertext", 0), CLOSED),
                "end of the ciphertext": (flip("payload", "ciphertext", -1), CLOSED),
                "hash": (flip("sa-data", "hash", 0), CLOSED),
                "end of the hash": (flip("sa-data", "hash", -1), CLOSED),
                "random": (flip("sa-data", "random", 5), CLOSED),
                "replayed": (twice, CLOSED),
                "replayed later": (older, CLOSED),
                "forged": (lambda raw: raw.send(forged(raw)), CLOSED),
                # The format's MAC does not cover the iv: what it spoils is no message any more.
                "iv": (flip("sa-data", "iv", 0), malformed),
                "end of the iv": (flip("sa-data", "iv", -1), malformed),
                "key": (flip("payload", "public_key", 100), malformed),
                "not JSON": (lambda raw: raw.say(b"\xff{"), malformed),
                "not an object": (lambda raw: raw.say(b"[]"), malformed),
                "empty": (lambda raw: raw.say(b""), malformed),
                "NaN": (lambda raw: raw.say(b'{"type":NaN}'), malformed),
                "nested": (lambda raw: raw.say(b"[" * 20_000 + b"]" * 20_000), malformed),
                "a frame of brackets": (lambda raw: raw.send(b"[" * 50_000), malformed),
                "an iv of 15 bytes": (lambda raw: raw.send(_with(raw, "iv", bytes(15))), malformed),
                "a random of 33 bytes": (lambda raw: raw.send(_with(raw, "random", bytes(33))), malformed),
                "a hash of 31 bytes": (lambda raw: raw.send(_with(raw, "hash", bytes(31))), malformed),
                "a hash of another spec": (lambda raw: raw.send(_with(raw, "hash", bytes(48))), CLOSED),
                "no payload": (lambda raw: raw.send({**raw.sealed({}), "payload": None}), malformed),
                "greets again": (lambda raw: raw.send(raw.greeting()), malformed),
            },
            session=True,
        )

    def test_wrong_inside(self) -> None:
        """What is authentic and wrong is answered, with the dst as it came, and the session goes on."""

        def told(code: str, dst: object = None) -> Outcome:
            return State.OPEN, [(code, dst)]

        def say(kind: str, **fields: Any) -> Act:
            return lambda raw: raw.say({"type": kind, **fields})

        com = json.loads(json.dumps({name: _base64(bytes(size)) for name, size in _SIZES.items()}))
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
            raw.stream.write(data[:-1])
            self.network.run_for(FRAME_TIMEOUT - 1)
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


class AcknowledgementTests(SynchronousTestCase):
    """An ack goes out for every object that is none itself, before anything else and in a segment of its own."""

    def segments(self, raw: Raw) -> list[bytes]:
        """From now on, what the server hands to the operating system, call by call."""
        fake = cast("Stream", raw.server_end.transport).fake
        found: list[bytes] = []
        send = fake.send

        def spied(data: memoryview) -> int:
            if data:
                found.append(bytes(data))
            return send(data)

        self.patch(fake, "send", spied)
        return found

    def test_segments(self) -> None:
        raw = Raw(Network())
        segments = self.segments(raw)
        raw.send(raw.greeting())
        raw.send(raw.keying(fresh_keys(raw)))
        self.assertEqual(segments[::2], [b'{"type":"ack"}\n\n'] * 2)
        self.assertEqual(len(segments), 4)

    def test_before_processing(self) -> None:
        """At the time that a frame is processed, its ack is on its way."""
        raw = Raw(Network()).handshake()
        segments = self.segments(raw)
        seen: list[list[bytes]] = []
        list_reply = raw.server_end._list_reply

        def spied() -> bytes:
            seen.append(list(segments))
            return list_reply()

        self.patch(raw.server_end, "_list_reply", spied)
        raw.say({"type": "list"})
        self.assertEqual(seen, [[b'{"type":"ack"}\n\n']])

    def test_many_at_once(self) -> None:
        raw = Raw(Network()).handshake()
        frames = [json.dumps(raw.sealed({"type": "list"})).encode() for _ in range(5)]
        seen = len(raw.kinds())
        raw.send(b"\n\n".join(frames))
        self.assertEqual(raw.kinds()[seen:], ["ack", "secure"] * 5)


class ClosingTests(SynchronousTestCase):
    """How the server closes."""

    def connection(self) -> tuple[Network, Raw, SeedConnection]:
        network = Network()
        raw = Raw(network).handshake()
        return network, raw, raw.server_end

    def test_lets_the_client_read(self) -> None:
        network, raw, end = self.connection()
        raw.stream.pauseProducing()
        raw.stream.write(b"x" * (MAX_FRAME + 1))
        raw.stream.write(b"unread" * 10_000)
        network.run_for(LINGER / 2)
        raw.stream.resumeProducing()
        network.settle()
        self.assertEqual(outcome(raw), (State.CLOSED, [("too-large", None)]))
        self.assertTrue(raw.closed)
        self.assertEqual(network.server.connections, set())

    def test_does_not_wait_for_ever(self) -> None:
        """A client that does not close is cut off, and nothing is left of it."""
        network, raw, end = self.connection()
        raw.stubborn = True
        raw.send(b"garbage")
        self.assertEqual(network.relay.entries(end)[1:], [])
        network.run_for(LINGER - 0.01)
        self.assertEqual(network.server.connections, {end})
        network.run_for(0.02)
        self.assertEqual(network.server.connections, set())
        self.assertEqual(network.clock.getDelayedCalls(), [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_takes_nothing_more(self) -> None:
        network, raw, _ = self.connection()
        raw.stubborn = True
        frame = json.dumps(raw.sealed({"type": "list"})).encode()
        raw.send(b"garbage\n\n" + frame + b"\n\n" + frame)
        self.assertEqual(outcome(raw), (State.CLOSED, [("malformed", None)]))
        raw.send(frame)
        self.assertEqual(raw.kinds()[-1], "secure")  # no ack

    def test_server_stops(self) -> None:
        network, raw, end = self.connection()
        raw.server_end.deliver(b'{"type":"list","data":[]}')
        end.close()
        network.settle()
        self.assertEqual(raw.heard(), [{"type": "list", "data": []}])
        self.assertTrue(raw.closed)
        self.assertEqual((len(network.relay), network.server.connections), (0, set()))

    def test_codes_only(self) -> None:
        """What is told names a code of the protocol and nothing that was sent."""
        network, raw, _ = self.connection()
        raw.say({"type": "client-disconnect", "src": 666, "dst": 5, "data": {"secret": "plum"}})
        raw.say({"type": "plum"})
        heard = raw.heard()
        self.assertNotIn("plum", json.dumps(heard))
        for inner in heard:
            self.assertIn(inner["code"], set(Code))


_SIZES = {"hash": 32, "iv": 16, "public_key": 215, "ciphertext": 4, "random": 32}


def _base64(data: bytes) -> str:
    return b64encode(data).decode()


def _flipped(text: str, position: int) -> str:
    data = bytearray(b64decode(text))
    data[position] ^= 1
    return _base64(bytes(data))


def _padded(pem: bytes) -> bytes:
    """A key as long as one of secp384r1."""
    return pem[:-26] + b"A" * (215 - len(pem)) + pem[-26:]


def _moved(pem: bytes) -> bytes:
    """The PEM text of something beside the curve."""
    return pem[:150] + (b"A" if pem[150:151] != b"A" else b"B") + pem[151:]


def _with(raw: Raw, field: str, value: bytes) -> dict[str, Any]:
    frame = raw.sealed({"type": "list"})
    frame["sa-data"][field] = _base64(value)
    return frame
