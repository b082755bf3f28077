"""Tests of what the modern protocol stores: only what was stored comes back, and nothing of it is ever shown."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import msgspec
from twisted.trial.unittest import SynchronousTestCase

import sims.crypto
from sims.crypto.conversation import Conversation
from sims.crypto.peer import PeerSessions
from sims.crypto.prekeys import OwnPrekeys
from sims.crypto.session import Session
from sims.errors import Code, PeerError
from sims.specs import MODERN
from sims.test.builders import refusal
from sims.test.modern_builders import NOW, SPECS, Relay
from sims.test.test_crypto_modern_session import ALICE, BOB, CAROL, Pair

#: Values that no field may have, where the test doesn't name better ones.
ODD: tuple[object, ...] = (None, -1, "other", b"", [], {}, 1.5)
USED: tuple[object, ...] = ({9: bytes(12)}, {0: bytes(11)}, {"0": bytes(12)})
MEMORIES: tuple[object, ...] = ({bytes(31): True}, {bytes(32): 1}, [])
#: Types whose repr shows their fields. In them is only what travels, what is signed in public, and what itself shows
#: nothing; a type that holds a key, a secret or a text doesn't belong here.
SHOWN = frozenset(
    {
        "Agreed",
        "Box",
        "Came",
        "Header",
        "Incoming",
        "Joined",
        "Keys",
        "Limits",
        "Outgoing",
        "Party",
        "Prekeys",
        "Sent",
        "Started",
    }
    | {"Struct", "_Base", "_Fixed", "_Kind", "_Typed"}
)


class Stored(SynchronousTestCase):
    def check(
        self, load: Callable[[bytes], Any], dumped: bytes, *changes: tuple[str, Any], allowed: tuple[str, ...] = ()
    ) -> None:
        """What was dumped comes back; with any of the changes it does not, nor without a field, nor with one more.

        :param changes: a path of keys and indices, and what is set there.
        :param allowed: fields that may have some other value.
        """
        self.assertEqual(load(dumped).dump(), dumped)
        state = msgspec.msgpack.decode(dumped, strict=False)
        every = [*changes, ("more", 1), ("version", 0), ("version", 2)]
        every += [(key, odd) for key in state if key not in allowed for odd in ODD]
        found = [((path, value), self.changed(state, path, value)) for path, value in every]
        found += [(("-" + gone, None), {key: value for key, value in state.items() if key != gone}) for gone in state]
        for change, other in found:
            if repr(other) != repr(state):
                try:
                    load(msgspec.msgpack.encode(other))
                except PeerError as error:
                    self.assertIs(error.code, Code.MALFORMED)
                else:
                    self.fail(f"not refused: {change}")
        for data in (b"", b"\xc1", b"\xff", dumped[:-1], dumped + b"\0", dumped[:1] + dumped[1:14] + dumped[1:]):
            refusal(PeerError, load, data)

    def changed(self, state: Any, path: str, value: Any) -> Any:
        """The state with something else at a path; the state itself, where there is no such place."""
        key, _, rest = path.partition("/")
        if isinstance(state, list):
            return [self.changed(one, rest, value) if rest else value for one in state[:1]] + state[1:]
        if not isinstance(state, dict) or (rest and key not in state):
            return state
        found: Any = int(key) if key.isdigit() else key
        return {**state, found: self.changed(state[key], rest, value) if rest else value}

    def test_sessions_at_every_stage(self) -> None:
        pair = Pair()
        stored = [(ALICE, pair.alice.dump())]
        pair.meet()
        stored += [(ALICE, pair.alice.dump()), (BOB, pair.bob.dump())]
        pair.bob.open(pair.says(pair.alice, None), NOW)
        pair.alice.open(pair.says(pair.bob, b"early"), NOW)
        stored += [(ALICE, pair.alice.dump()), (BOB, pair.bob.dump())]
        pair.alice.open(pair.says(pair.bob, None), NOW)
        pair.bob.open(pair.says(pair.alice, b"text"), NOW)
        stored += [(ALICE, pair.alice.dump()), (BOB, pair.bob.dump())]
        stages = {"opening", "answered", "accepted", "done"}
        expected = ["opening", "answered", "accepted", "answered", "done", "done", "done"]
        self.assertEqual([msgspec.msgpack.decode(dumped, strict=False)["stage"] for _, dumped in stored], expected)
        for identity, dumped in stored:
            state = msgspec.msgpack.decode(dumped, strict=False)
            own, peer = state["own"], state["peer"]
            phase1 = msgspec.msgpack.decode(stored[0][1], strict=False)["phase1"]
            phase2 = msgspec.msgpack.decode(stored[2][1], strict=False)["phase2"]
            dues = {1, 2, 3, 4, 5} - {{"answered": 3, "accepted": 2, "done": 4}.get(state["stage"], 0)}
            if identity is ALICE and state["stage"] == "done":
                dues.add(4)
            alike = {"answered", "done"} if identity is ALICE else set()
            self.check(
                lambda data, identity=identity: Session.load(identity, data),  # type: ignore[misc]
                dumped,
                *(("due", due) for due in dues),
                *(("stage", stage) for stage in stages - (alike if state["stage"] in alike else {state["stage"]})),
                *(("macs", macs) for macs in ([b"", b""], [b"", bytes(48)], [bytes(31)] * 2, [bytes(32)])),
                ("initiator", state["initiator"] if state["stage"] == "done" else not state["initiator"]),
                ("accepted", bytes(31)),
                *(("own", party) for party in (peer, [CAROL.id, *own[1:]], [own[0], peer[1], *own[2:]])),
                *(("peer", party) for party in (own, [CAROL.id, *peer[1:]])),
                ("phase1", None if state["phase1"] else phase1),
                ("phase2", None if state["phase2"] else phase2),
                *(("ratchet/spec", spec) for spec in ("X", SPECS[1])),
                *(("ratchet/" + key, CAROL.id) for key in ("own_id", "peer_id")),
                *(
                    ("ratchet/own_dh", value)
                    for value in (bytes(31), b"", bytes(32) if not state["ratchet"]["own_dh"] else None)
                ),
                *(("ratchet/own_kem", value) for value in (bytes(63), b"")),
                *(("ratchet/" + key, bytes(31)) for key in ("root", "next_sending_key", "next_receiving_key", "th1")),
                *(("ratchet/sending/" + key, b"x") for key in ("key", "kem", "dh", "header_key")),
                ("ratchet/sending/n", -1),
                *(("ratchet/receiving/" + key, b"") for key in ("key", "kem", "dh", "header_key")),
                *(("ratchet/receiving/used", used) for used in USED),
                *(("ratchet/receiving/skipped", skipped) for skipped in ({9: [bytes(32), 1]}, {0: [b"", 1]})),
                ("ratchet/past/0/key", bytes(32)),
                ("ratchet/past/0/kem", bytes(1184)),
                ("ratchet/past", [state["ratchet"]["receiving"]]),
                ("ratchet/receiving", None if state["ratchet"]["receiving"] else {}),
                allowed=("due", "phase1", "phase2"),
            )
            alone = self.changed(self.changed(state, "peer", own), "ratchet/peer_id", identity.id)
            refusal(PeerError, Session.load, identity, msgspec.msgpack.encode(alone))
            for other in (CAROL, BOB if identity is ALICE else ALICE):
                refusal(PeerError, Session.load, other, dumped)

    def test_all_that_is_kept_about_a_person(self) -> None:
        relay = Relay()
        relay.alice.say("one")
        relay.settle()
        relay.alice.begin()
        alice = relay.alice
        dumped = alice.sessions.dump()
        state = msgspec.msgpack.decode(dumped)
        bundle = OwnPrekeys().make_bundle(CAROL, "carol", SPECS, now=NOW, entropy=alice.entropy)
        other = PeerSessions(alice.identity, CAROL.id)
        other.start(MODERN, bundle, None, now=NOW, entropy=alice.entropy)
        foreign = msgspec.msgpack.decode(other.dump())["sessions"][0]
        self.check(
            lambda data: PeerSessions.load(alice.identity, data),
            dumped,
            *(("peer", person) for person in (alice.identity.id, CAROL.id, "x", relay.bob.identity.id.upper())),
            ("keys", [CAROL.public.sign, CAROL.public.dh]),
            ("keys", [bytes(32), bytes(32)]),
            *(("seen", value) for value in ({}, {"version": -1, "digest": b""})),
            *(("sessions", sessions) for sessions in (state["sessions"][:1] * 2, [foreign], state["sessions"] * 4)),
            *(("sessions/0/session", session) for session in (b"", foreign["session"])),
            *(("sessions/0/" + key, -1) for key in ("begun", "heard", "at")),
            allowed=("keys", "seen", "sessions"),
        )
        empty = PeerSessions(alice.identity, CAROL.id).dump()
        self.check(
            lambda data: PeerSessions.load(alice.identity, data),
            empty,
            *(("peer", person) for person in (alice.identity.id, "x", CAROL.id.upper())),
            allowed=("keys", "seen", "sessions"),
        )
        whole = alice.conversation.dump()
        self.check(
            lambda data: Conversation.load(alice.identity, data),
            whole,
            ("sessions", relay.bob.sessions.dump()),
            ("stream", bytes(7)),
            ("chain", bytes(31)),
            ("closing", [{}]),
            ("order", dumped),
            allowed=("closing",),
        )
        refusal(PeerError, Conversation.load, relay.bob.identity, whole)
        refusal(PeerError, PeerSessions.load, relay.bob.identity, dumped)

    def test_own_prekeys(self) -> None:
        prekeys = Pair().prekeys
        prekeys.spend(1, None, b"a" * 32)
        self.check(
            OwnPrekeys.load,
            prekeys.dump(),
            *(("next_id", value) for value in (0, 2**32 + 1)),
            *(("generations/0/" + key, bytes(31)) for key in ("prekey", "kem_prekey")),
            *(("generations/0/used", used) for used in MEMORIES),
            ("generations/0/bundle", {}),
            *(("one_time/3", key) for key in ({}, {"private": bytes(32), "seed": bytes(63), "made": 1})),
            allowed=("generations", "one_time"),
        )


class Shown(SynchronousTestCase):
    def test_no_type_shows_what_is_in_it(self) -> None:
        """The Structs and NamedTuples of the core have reprs of their own: what a generated one shows may be a key."""
        shown, count = [], 0
        for module in pkgutil.iter_modules(sims.crypto.__path__, "sims.crypto."):
            for found in vars(importlib.import_module(module.name)).values():
                if isinstance(found, type) and issubclass(found, msgspec.Struct | tuple):
                    count += 1
                    made = next(vars(base)["__repr__"] for base in found.__mro__ if "__repr__" in vars(base))
                    if getattr(made, "__module__", None) in (None, "collections"):
                        shown.append(found.__name__)
        self.assertLessEqual(set(shown), SHOWN)
        self.assertGreater(count, 40)
