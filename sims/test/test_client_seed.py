"""The user's end of the seed's format: every state with every message, and what the user hears."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from sims import messages, specs, wire
from sims.client import events, seed
from sims.client.events import Contact
from sims.client.seed_hop import HopState
from sims.client.seed_peer import PeerState
from sims.crypto.primitives import p384_to_pem
from sims.crypto.seed import Keys
from sims.errors import Code, PeerError
from sims.strictjson import Octets32, Pem
from sims.test.cheapkeys import SeededEntropy, use_cheap_keys
from sims.test.desk import Desk, Far, anybody, heard, kinds

LOWER, OWN, HIGHER = 3, 5, 9


class HopTableTests(SynchronousTestCase):
    """Every state of the session with the server, with every frame."""

    def setUp(self) -> None:
        use_cheap_keys(self)

    def frames(self, desk: Desk) -> dict[str, bytes]:
        """One frame of each kind."""
        spec = specs.SEED[0].name
        keys = Keys(*_fresh(desk.entropy))
        data = messages.ServerKeys(public_key=Pem(keys.public_key), server_random=Octets32(keys.random))
        session = desk.session or anybody(desk.entropy)
        made: dict[str, messages.Message] = {
            "ack": messages.Ack(),
            "connect 1": messages.Connect1(name="x", id=1, ciphers=[spec]),
            "connect 2": messages.Connect2(ciphers=spec),
            "connect 2 of another": messages.Connect2(ciphers="ECDHE-AES128_OFB-SHA256"),
            "connect 4": messages.Connect4(ciphers=spec, data=data),
            "secure": messages.Secure.of(session.seal(b'{"type":"list","data":[]}')),
            "forged": messages.Secure.of(anybody(desk.entropy).seal(b'{"type":"list","data":[]}')),
            "not an object": messages.Secure.of(session.seal(b"[]")),
        }
        found = {name: wire.encode(message) for name, message in made.items()}
        return {**found, "unknown": b'{"type":"hello"}', "garbage": b"garbage"}

    def bring(self, state: HopState) -> Desk:
        desk = Desk(OWN)
        if state is HopState.READY:
            return desk.connect()
        if state is not HopState.OFFLINE:
            desk.messenger.connected()
        if state is HopState.KEYED:
            desk.messenger.receive(wire.encode(messages.Connect2(ciphers=specs.SEED[0].name)))
        self.assertIs(desk.messenger.hop.state, state)
        desk.messenger.hop.frames.clear()
        return desk

    #: The state afterwards and what was sent at once. Everything else is refused, and changes nothing.
    TABLE = {
        **{(state, "ack"): (state, []) for state in HopState},
        (HopState.OFFERED, "connect 2"): (HopState.KEYED, ["connect"]),
        # As the original does, it sends a list request at once.
        (HopState.KEYED, "connect 4"): (HopState.READY, ["secure"]),
        (HopState.READY, "secure"): (HopState.READY, []),
    }
    REFUSED = {
        (HopState.OFFERED, "connect 2 of another"): Code.NO_COMMON_SPEC,
        (HopState.READY, "forged"): Code.NOT_AUTHENTICATED,
    }

    def test_table(self) -> None:
        for state in HopState:
            for name in self.frames(Desk(OWN)):
                desk = self.bring(state)
                hop = desk.messenger.hop
                frame = self.frames(desk)[name]
                label = f"{name} in {state}"
                if (state, name) in self.TABLE:
                    desk.messenger.receive(frame)
                    sent = [wire.parse(one)["type"] for one in hop.frames]
                    self.assertEqual((hop.state, sent), self.TABLE[state, name], label)
                else:
                    before = (hop.state, list(hop.frames), desk.happened())
                    with self.assertRaises(PeerError, msg=label) as caught:
                        desk.messenger.receive(frame)
                    expected = self.REFUSED.get((state, name), Code.MALFORMED)
                    self.assertEqual(caught.exception.code, expected, label)
                    self.assertEqual((hop.state, list(hop.frames), []), (*before[:2], desk.happened()), label)
                # Wherever it was, it can be lost, and begin anew.
                desk.lose()
                self.assertIs(hop.state, HopState.OFFLINE, label)
                desk.connect()
                self.assertIs(hop.state, HopState.READY, label)

    def test_acks_too_many(self) -> None:
        """An ack for nothing proves nothing."""
        desk = Desk(OWN).connect()
        for _ in range(100):
            desk.frame(messages.Ack())
        self.assertEqual(heard(desk.happened()), ["ready"])

    def test_ready(self) -> None:
        desk = Desk(OWN).connect()
        self.assertEqual(desk.happened(), [events.Ready(id="5", name="me", spec="ECDHE-AES128_CTR-SHA256")])
        self.assertEqual(desk.lists, 1)


class PeerTableTests(SynchronousTestCase):
    """Every state of a conversation, with every message."""

    def setUp(self) -> None:
        use_cheap_keys(self)

    def bring(self, state: str, number: int) -> tuple[Desk, Far]:
        """A messenger with a conversation in this state."""
        desk = Desk(OWN).connect()
        far = Far(desk, number)
        if state in ("open", "replacing"):
            far.open()
        if state in ("offered", "keyed"):
            desk.do(lambda messenger: messenger.connect(str(number), "ref"))
        if state == "keyed":
            desk.give(far.phase2())
        if state in ("answered", "replacing"):
            desk.give(far.phase1())
        self.assertEqual(self.state(desk, number), state)
        desk.take()
        desk.happened()
        return desk, far

    def state(self, desk: Desk, number: int) -> str:
        """The state of the conversation."""
        peer = desk.messenger._peers.get(number)
        if peer is None:
            return "none"
        if peer.state is PeerState.IDLE:
            return "open" if peer.session is not None else "idle"
        if peer.session is None:
            return peer.state.name.lower()
        return "replacing" if peer.state is PeerState.ANSWERED else f"{peer.state.name} with a session"

    INPUTS: dict[str, Callable[[Far], messages.InnerMessage]] = {
        "1": lambda far: far.phase1(),
        "2": lambda far: far.phase2(),
        "3": lambda far: far.phase3(),
        "4": lambda far: far.phase4(),
        "com": lambda far: far.com("hi"),
        "ack": lambda far: far.ack(),
        "disconnect": lambda far: far.disconnect(),
        "error": lambda far: far.error(),
        "unknown": lambda far: messages.Error(code="unknown-recipient", dst=str(far.id)),
        "refused": lambda far: messages.Error(code="too-large", dst=str(far.id)),
    }

    #: The state afterwards, what was sent, and what the user heard.
    TABLE: dict[str, dict[str, tuple[str, list[str], list[str]]]] = {
        "none": {
            "1": ("answered", ["client-connect 2"], []),
            "2": ("none", [], ["malformed"]),
            "3": ("none", [], ["malformed"]),
            "4": ("none", [], ["malformed"]),
            "com": ("none", ["client-disconnect"], []),
            "ack": ("none", [], []),
            "disconnect": ("none", [], []),
            "error": ("none", [], []),
            "unknown": ("none", [], []),
        },
        "offered": {
            "1": ("offered", [], []),  # from a higher id; see below for a lower one
            "2": ("keyed", ["client-connect 3"], []),
            "3": ("offered", [], ["malformed"]),
            "4": ("offered", [], ["malformed"]),
            "com": ("offered", [], []),  # of an older conversation: it comes again
            "ack": ("offered", [], []),
            "disconnect": ("offered", [], []),
            "error": ("none", [], ["policy"]),
            "unknown": ("none", [], ["unknown-recipient"]),
        },
        "keyed": {
            "1": ("answered", ["client-connect 2"], []),
            "2": ("keyed", [], ["malformed"]),
            "3": ("keyed", [], ["malformed"]),
            "4": ("open", [], ["connected"]),
            "com": ("keyed", [], []),  # of an older conversation: it comes again
            "ack": ("keyed", [], []),
            "disconnect": ("none", [], ["unavailable"]),
            "error": ("none", [], ["policy"]),
            "unknown": ("none", [], ["unknown-recipient"]),
        },
        "answered": {
            "1": ("answered", ["client-connect 2"], []),
            "2": ("answered", [], ["malformed"]),
            "3": ("open", ["client-connect 4"], ["connected"]),
            "4": ("answered", [], ["malformed"]),
            "com": ("answered", [], []),  # of an older conversation: it comes again
            "ack": ("answered", [], []),
            "disconnect": ("none", [], ["unavailable"]),
            "error": ("none", [], ["policy"]),
            "unknown": ("none", [], ["unknown-recipient"]),
        },
        "open": {
            "1": ("replacing", ["client-connect 2"], []),
            "2": ("open", [], ["malformed"]),
            "3": ("open", [], ["malformed"]),
            "4": ("open", [], ["malformed"]),
            "com": ("open", ["ack"], ["message"]),
            "ack": ("open", [], []),
            "disconnect": ("none", [], ["disconnected"]),
            "error": ("open", [], []),
            "unknown": ("none", [], ["disconnected"]),
        },
        "replacing": {
            "1": ("replacing", ["client-connect 2"], []),
            "2": ("replacing", [], ["malformed"]),
            "3": ("open", ["client-connect 4"], ["connected"]),
            "4": ("replacing", [], ["malformed"]),
            "com": ("replacing", ["ack"], ["message"]),
            "ack": ("replacing", [], []),
            "disconnect": ("none", [], ["unavailable", "disconnected"]),
            "error": ("open", [], ["policy"]),
            "unknown": ("none", [], ["unknown-recipient", "disconnected"]),
        },
    }

    def test_table(self) -> None:
        for state, row in self.TABLE.items():
            for name, give in self.INPUTS.items():
                desk, far = self.bring(state, HIGHER)
                desk.give(give(far))
                found = (self.state(desk, HIGHER), kinds(desk.take()), heard(desk.happened()))
                # What else the server refuses is told, and changes nothing.
                expected = row.get(name, (state, [], ["too-large"]))
                self.assertEqual(found, expected, f"{name} in {state}")

    def test_crossing(self) -> None:
        """Phase 1s that cross: the higher id drops its own and answers."""
        desk, far = self.bring("offered", LOWER)
        desk.give(far.phase1())
        self.assertEqual(self.state(desk, LOWER), "answered")
        sent = desk.take()
        self.assertEqual(kinds(sent), ["client-connect 2"])
        desk.give(far.phase3(sent[0]["ciphers"]))
        # Whoever asked for the conversation hears that it is there.
        [connected] = desk.happened()
        self.assertEqual(connected, events.Connected(peer=Contact("3", ""), spec="ECDHE-AES128_CTR-SHA256", ref="ref"))

    def test_timeouts(self) -> None:
        """A handshake has ten seconds, wherever it is; an older conversation goes on."""
        for state in ("offered", "keyed", "answered", "replacing"):
            desk, _ = self.bring(state, HIGHER)
            desk.advance(seed.OPEN_TIMEOUT - 0.01)
            self.assertEqual((self.state(desk, HIGHER), desk.happened()), (state, []))
            self.assertAlmostEqual(desk.messenger.tick() or 0.0, desk.now + 0.01)
            desk.advance(0.02)
            after = "open" if state == "replacing" else "none"
            self.assertEqual((self.state(desk, HIGHER), heard(desk.happened())), (after, ["unavailable"]), state)
            self.assertIsNone(desk.messenger.tick(), state)
            self.assertEqual(desk.messenger.under_way, 0, state)

    def test_forgeries(self) -> None:
        """What does not open shows nothing, is not acknowledged, and spoils nothing."""
        desk, far = self.bring("open", HIGHER)
        first = far.com("first")
        for field in ("hash", "iv", "random", "ciphertext"):
            box = messages.SealedBox(**{name: getattr(first.data, name) for name in first.data.__struct_fields__})
            value = getattr(box, field)
            flipped = type(value)(bytes([value[0] ^ 1]) + value[1:])
            changed = messages.SealedBox(**{**{n: getattr(box, n) for n in box.__struct_fields__}, field: flipped})
            desk.give(messages.ClientCom(src=HIGHER, dst=OWN, data=changed))
            self.assertEqual(desk.take(), [], field)
            self.assertIn(heard(desk.happened()), (["not-authenticated"], ["malformed"]), field)
        desk.give(first)
        desk.give(first)
        self.assertEqual(kinds(desk.take()), ["ack"])
        self.assertEqual(heard(desk.happened()), ["message", "not-authenticated"])

    def test_no_common_spec(self) -> None:
        desk = Desk(OWN).connect()
        desk.happened()
        desk.give(messages.ClientConnect1(src=HIGHER, dst=OWN, ciphers=["ECDHE-AES128_CBC-SHA256"]))
        self.assertEqual(desk.take(), [{"type": "error", "code": "no-common-spec", "src": OWN, "dst": HIGHER}])
        self.assertEqual(heard(desk.happened()), ["no-common-spec"])
        # And the other way round: a choice that was not offered.
        desk, far = self.bring("offered", HIGHER)
        desk.give(far.phase2("ECDHE-AES128_OFB-SHA256"))
        self.assertEqual((self.state(desk, HIGHER), heard(desk.happened())), ("none", ["no-common-spec"]))

    def test_not_for_us(self) -> None:
        """A message from ourselves or for somebody else is refused; the connection stays."""
        desk, far = self.bring("open", HIGHER)
        for src, dst in ((HIGHER, 6), (OWN, OWN), ("x", OWN), (HIGHER, "x")):
            desk.give(messages.ClientCom(src=src, dst=dst, data=far.com("x").data))
            self.assertEqual((desk.take(), heard(desk.happened())), ([], ["malformed"]))
        desk.give({"type": "client-com", "src": str(HIGHER), "dst": str(OWN)})
        desk.give({"type": "hello"})
        self.assertEqual((desk.take(), heard(desk.happened())), ([], ["malformed"] * 2))
        self.assertEqual(self.state(desk, HIGHER), "open")

    def test_most_peers(self) -> None:
        """Conversations that are over do not count; beyond the bound, the oldest idle one makes room."""
        self.patch(seed, "MAX_PEERS", 3)
        desk = Desk(OWN).connect()
        for number in range(10, 16):
            far = Far(desk, number).open()
            desk.give(far.disconnect())
        self.assertEqual(len(desk.messenger._peers), 0)
        for number in range(20, 23):
            Far(desk, number).open()
        desk.happened()
        desk.give(Far(desk, 23).phase1())
        self.assertEqual([inner["phase"] for inner in desk.take()], [2])
        self.assertEqual(heard(desk.happened()), ["disconnected"])
        self.assertEqual([contact.id for contact in desk.messenger.conversations()], ["21", "22"])

    def test_most_busy_peers(self) -> None:
        """Where something is under way everywhere, nobody else can open a conversation."""
        self.patch(seed, "MAX_PEERS", 3)
        desk = Desk(OWN).connect()
        for number in range(20, 23):
            desk.give(Far(desk, number).phase1())
        desk.take(), desk.happened()
        desk.give(Far(desk, 23).phase1())
        self.assertEqual((desk.take(), heard(desk.happened())), ([], ["unavailable"]))


def _fresh(entropy: SeededEntropy) -> tuple[bytes, bytes]:
    return p384_to_pem(entropy.p384().public_key()), entropy.octets(32)
