"""Tests of :mod:`sims.console.view`."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterator
from typing import Any

from msgspec.structs import replace
from twisted.trial.unittest import SynchronousTestCase

from sims.client.events import (
    About,
    Connected,
    Contact,
    Deleted,
    Delivery,
    Disconnected,
    Event,
    History,
    IdentityChanged,
    Link,
    Listing,
    Message,
    NotRead,
    Offline,
    Problem,
    Ready,
    SafetyNumber,
    State,
    Trusted,
    Unreadable,
    Why,
)
from sims.client.plain import clean
from sims.console.view import conversations_to_text, to_json, to_text
from sims.errors import Code
from sims.test.said_samples import CAME, EVE, EVE_JSON, ID, LONG, LOST, SAID_EVENTS, SENT

SPEC = "ECDHE-AES128_CTR-SHA256"
MODERN = "X25519MLKEM768-AES256_GCM-SHA384"
BOB = Contact("8", "bob")
BOB_JSON = {"id": "8", "name": "bob"}

#: Every event, the object that a program reads, and the lines that a person reads.
EVENTS: list[tuple[Event, dict[str, Any], str | None]] = [
    (
        Ready(id="7", name="alice", spec=SPEC),
        {"event": "ready", "id": "7", "name": "alice", "spec": SPEC},
        f"* ready as alice (7), {SPEC}\n"
        "* nothing authenticates this server or anybody on it; 'help' lists the commands",
    ),
    (
        Listing(clients=(Contact("7", "alice"), BOB)),
        {"event": "list", "clients": [{"id": "7", "name": "alice"}, BOB_JSON]},
        "* connected to the server: alice (7), bob (8)",
    ),
    (
        Connected(peer=BOB, spec=SPEC),
        {"event": "connected", "peer": BOB_JSON, "spec": SPEC, "verified": False},
        f"* conversation with bob (8) [unauthenticated], {SPEC}",
    ),
    (
        Message(sender=BOB, text="hi there", id="m1"),
        {"event": "message", "from": BOB_JSON, "text": "hi there", "id": "m1"},
        "bob (8) [unauthenticated]: hi there",
    ),
    (
        State(id="m2", to=BOB, state=Delivery.QUEUED, text="hi"),
        {"event": "state", "id": "m2", "to": BOB_JSON, "text": "hi", "state": "queued"},
        None,
    ),
    (
        State(id="m2", to=BOB, state=Delivery.ACCEPTED),
        {"event": "state", "id": "m2", "to": BOB_JSON, "state": "accepted"},
        None,
    ),
    (
        State(id="m2", to=BOB, state=Delivery.DELIVERED),
        {"event": "state", "id": "m2", "to": BOB_JSON, "state": "delivered"},
        "* delivered to bob (8)",
    ),
    (
        State(id="m2", to=BOB, state=Delivery.READ),
        {"event": "state", "id": "m2", "to": BOB_JSON, "state": "read"},
        None,
    ),
    (
        State(id="m2", to=BOB, state=Delivery.FAILED, code=Code.UNKNOWN_RECIPIENT),
        {"event": "state", "id": "m2", "to": BOB_JSON, "state": "failed", "code": "unknown-recipient"},
        "! not delivered to bob (8): unknown-recipient",
    ),
    (
        Disconnected(peer=BOB),
        {"event": "disconnected", "peer": BOB_JSON},
        "* conversation with bob (8) is closed",
    ),
    (Offline(), {"event": "offline"}, "! the connection to the server is lost; trying again"),
    (
        Problem(code=Code.NO_COMMON_SPEC, text="8 refused the conversation"),
        {"event": "error", "code": "no-common-spec", "text": "8 refused the conversation"},
        "! 8 refused the conversation (no-common-spec)",
    ),
    (
        Ready(id=ID, name="alice", spec=MODERN),
        {"event": "ready", "id": ID, "name": "alice", "spec": MODERN},
        f"* ready as alice ({ID}), {MODERN}\n* 'help' lists the commands",
    ),
    (
        Connected(peer=EVE, spec=MODERN, verified=True, confirmed=False),
        {"event": "connected", "peer": EVE_JSON, "spec": MODERN, "verified": True, "confirmed": False},
        f"* conversation with eve (kzc7jvbd...) [sender not confirmed], {MODERN}",
    ),
    (
        Connected(peer=EVE, spec=MODERN, verified=False, confirmed=True),
        {"event": "connected", "peer": EVE_JSON, "spec": MODERN, "verified": False, "confirmed": True},
        f"* conversation with eve (kzc7jvbd...) [unverified], {MODERN}",
    ),
    (
        Message(sender=EVE, text="hi", id="m1", verified=True, confirmed=True),
        {"event": "message", "from": EVE_JSON, "text": "hi", "id": "m1", "verified": True, "confirmed": True},
        "eve (kzc7jvbd...) [verified]: hi",
    ),
    (
        Message(sender=EVE, text="hi", id="m1", verified=True, confirmed=False, order="gap"),
        {
            "event": "message",
            "from": EVE_JSON,
            "text": "hi",
            "id": "m1",
            "verified": True,
            "confirmed": False,
            "order": "gap",
        },
        "eve (kzc7jvbd...) [sender not confirmed] [something before this is missing]: hi",
    ),
    (
        Link(link="sims://h:1/a/b/c"),
        {"event": "link", "link": "sims://h:1/a/b/c"},
        "* your link, for friends: sims://h:1/a/b/c",
    ),
    (
        SafetyNumber(peer=EVE, number=" ".join(["12345"] * 12)),
        {"event": "safety-number", "peer": EVE_JSON, "number": " ".join(["12345"] * 12)},
        "* safety number with eve (kzc7jvbd...):\n"
        "    12345 12345 12345 12345 12345 12345\n    12345 12345 12345 12345 12345 12345\n"
        "    The same on both screens? Then nobody sits between you: /trust",
    ),
    (Trusted(peer=EVE), {"event": "trusted", "peer": EVE_JSON, "verified": True}, "* eve (kzc7jvbd...) is verified"),
    (
        IdentityChanged(peer=EVE, old=ID, new="new"),
        {"event": "identity-changed", "peer": EVE_JSON, "old": ID, "new": "new"},
        "! the identity behind eve (kzc7jvbd...) has changed to new\n"
        "    Ask them in another way whether they have a new device; /accept-identity takes it.",
    ),
    (
        Unreadable(sender=EVE, id="m3", code=Code.NOT_AUTHENTICATED),
        {"event": "unreadable", "from": EVE_JSON, "id": "m3", "code": "not-authenticated"},
        "! a message of eve (kzc7jvbd...) could not be read (not-authenticated)",
    ),
    *SAID_EVENTS,
]

#: What a hostile peer would put in its name or in a text.
HOSTILE = [
    "x\n* delivered to bob (8)",
    "x\r\n* delivered to bob (8)",
    "x\r* delivered to bob (8)",
    "x\n\n\n! not delivered to bob (8): internal",
    "x\n\r* y",
    "x\n\u200d* y",
    "x\n\u202e* y",
    "x\n\x1b[2K* y",
    "\n* y",
    "x\v* y",
    "x\f* y",
    "x\x1c* y\x1d* y\x1e* y",
    "x\x85* y",
    "x\u2028* y",
    "x\u2029* y",
    "x\u2028\n\u2029* y",
    "\x1b]0;title\x07\x1b[2J\x1b[1;1H* y",
    "\x9b2J* y",
    "x\x08\x08\x08* y",
    "x\x00y",
    "\u202eyppah",
    "\u2066\u2067x\u2069",
    "\ufeffx\u00ad\u200b\u200e\u2060",
    "\U000e0041\ue000\ufff9",
    "\ud800",
]


def with_hostile(hostile: str) -> list[Event]:
    """Every event in which a peer's words appear, and those words in it."""
    peer = Contact("8", hostile)
    return [
        Listing(clients=(peer, BOB, peer)),
        Connected(peer=peer, spec=SPEC),
        Message(sender=peer, text="hi", id="m"),
        Message(sender=BOB, text=hostile, id="m"),
        Message(sender=peer, text=hostile, id="m"),
        *(State(id="m", to=peer, state=state, text=hostile, code=Code.INTERNAL) for state in Delivery),
        Disconnected(peer=peer),
        Problem(code=Code.INTERNAL, text=hostile),
        Ready(id="7", name=hostile, spec=SPEC),
        Connected(peer=peer, spec=MODERN, confirmed=True),
        Message(sender=peer, text=hostile, id="m", verified=True, confirmed=True, order="gap"),
        SafetyNumber(peer=peer, number="1"),
        Trusted(peer=peer),
        IdentityChanged(peer=peer, old=ID, new=ID),
        Unreadable(sender=peer, id="m", code=Code.INTERNAL),
        NotRead(to=peer, id="m", again=1),
        History(to=peer, messages=tuple(replace(one, peer=peer, text=hostile) for one in (SENT, CAME, LOST))),
        History(text=hostile, messages=(replace(CAME, text=hostile),)),
        Why(id=LONG, peer=peer, state="came", text="came", times={}),
        Deleted(peer=peer),
        About(facts={hostile: [hostile, {"a": hostile}]}),
    ]


#: How a line of a history begins.
SAID = re.compile(r"\[1970-01-01 00:0\d:0\d UTC 0b0b0b0b\] ")


class Json(SynchronousTestCase):
    def test_shows_every_event(self) -> None:
        self.assertEqual({type(event) for event, _, _ in EVENTS}, set(Event.__subclasses__()))
        self.assertEqual({event.state for event, _, _ in EVENTS if isinstance(event, State)}, set(Delivery))
        for event, value, _ in EVENTS:
            self.assertEqual(json.loads(to_json(event)), value)

    def test_names_the_command_that_caused_it(self) -> None:
        kinds: list[tuple[Callable[..., Event], dict[str, Any]]] = [(Offline, {}), (Disconnected, {"peer": BOB})]
        for kind, fields in kinds:
            for ref in ("a", "", 7, 0, -1):
                shown = json.loads(to_json(kind(ref=ref, **fields)))
                self.assertEqual(shown["ref"], ref)
                self.assertIs(type(shown["ref"]), type(ref))
            self.assertNotIn("ref", json.loads(to_json(kind(**fields))))

    def test_is_one_line_of_ascii_whatever_a_peer_wrote(self) -> None:
        for hostile in [*HOSTILE, "\u00e9\U0001f600", '"}\n{"event":"ready"}']:
            for event in with_hostile(hostile):
                line = to_json(event)
                self.assertTrue(line.isascii())
                self.assertTrue(line.isprintable())
                self.assertEqual(len(line.splitlines()), 1)

    def test_keeps_what_a_peer_wrote(self) -> None:
        for hostile in HOSTILE:
            shown = json.loads(to_json(Message(sender=Contact("8", hostile), text=hostile, id="m")))
            self.assertEqual((shown["text"], shown["from"]["name"]), (hostile, hostile))

    def test_of_no_event_is_none(self) -> None:
        self.assertRaises(TypeError, to_json, Event())


class Text(SynchronousTestCase):
    def test_shows_every_event(self) -> None:
        for event, _, text in EVENTS:
            self.assertEqual(to_text(event), text)

    def test_shows_an_id_alone_where_no_name_is_known(self) -> None:
        for name in ("", "\x00", "\u202e"):
            self.assertEqual(to_text(Disconnected(peer=Contact("8", name))), "* conversation with 8 is closed")
        self.assertEqual(to_text(State(id="m", to=Contact("", "bob"), state=Delivery.DELIVERED)), "* delivered to bob")

    def test_says_of_every_conversation_that_nothing_authenticates_it(self) -> None:
        for event in (Connected(peer=BOB, spec=SPEC), Message(sender=BOB, text="hi", id="m")):
            self.assertIn("[unauthenticated]", str(to_text(event)))
        self.assertIn("unauthenticated", conversations_to_text((BOB,)))

    def test_lists_conversations(self) -> None:
        self.assertEqual(conversations_to_text(()), "* no conversation is open")
        self.assertEqual(
            conversations_to_text((BOB, Contact("9", ""))), "* open conversations, all unauthenticated: bob (8), 9"
        )

    def test_begins_no_line_with_what_a_peer_wrote(self) -> None:
        for hostile in HOSTILE:
            for event in with_hostile(hostile):
                self.only_our_lines(to_text(event))
            self.only_our_lines(conversations_to_text((BOB, Contact("8", hostile))))

    def test_lets_no_name_look_like_a_line_of_ours(self) -> None:
        for name in ("* delivered to bob (8)", "! failed", "bob (8) [unauthenticated]: pay 99", "a\nb", "x" * 500):
            sender = Contact("99", name)
            shown = to_text(Message(sender=sender, text="hi", id="1")) or ""
            self.assertRegex(shown, r"\A[^*!\n()\[\]:>]{1,40} \(99\) \[unauthenticated\]: hi\Z")

    def test_indents_further_lines_of_a_text(self) -> None:
        for text in ("one\ntwo", "one\r\ntwo", "one\u2028two", "one\u2029two", "one\n\x1btwo"):
            self.assertEqual(to_text(Message(sender=BOB, text=text, id="m")), "bob (8) [unauthenticated]: one\n    two")

    def only_our_lines(self, shown: str | None) -> None:
        """The first line is ours; the others are ours, too, or they are indented. Nothing acts on the terminal.

        Of a history, a line for each message is ours.
        """
        if shown is None:
            return
        first, *others = shown.split("\n")
        self.assertEqual(shown.splitlines(), shown.split("\n") if others[-1:] != [""] else shown.split("\n")[:-1])
        ours = "* nothing authenticates this server or anybody on it; 'help' lists the commands"
        self.assertFalse(first.startswith(" "))
        for line in others:
            said = first.startswith(("* what was said", "* where that was said")) and SAID.match(line)
            self.assertTrue(line.startswith("    ") or line == ours or said, repr(shown))
        for char in shown.replace("\n", ""):
            self.assertNotIn(unicodedata.category(char), ("Cc", "Cs", "Co", "Cn", "Zl", "Zp"), repr(shown))
            self.assertFalse(unicodedata.category(char) == "Cf" and char not in "\u200c\u200d", repr(shown))


class Cleaning(SynchronousTestCase):
    """What a peer wrote, made safe to show.

    :cvar every: one of so many characters is tried where none has a meaning; all in ``tests/test_random_whole.py``.
    """

    every = 61

    def codes(self) -> Iterator[int]:
        """The planes that have characters, whole, and of the others (nothing, and for private use) some."""
        for plane in range(17):
            used = plane in (0, 1, 2, 3, 14)
            # The first and the last two of each, whatever it is: those at the end are no characters anywhere.
            yield from (plane << 16, *range((plane << 16) + 1, plane + 1 << 16, 1 if used else self.every))
            if not used:
                yield from range((plane + 1 << 16) - 2, plane + 1 << 16)

    def test_takes_out_every_control_and_format_character(self) -> None:
        others = {"\n", "\t", "\u2028", "\u2029"}
        everything = "".join(chr(code) for code in self.codes() if chr(code) not in others)
        plain = (char for char in everything if unicodedata.category(char)[0] != "C" or char in "\u200c\u200d")
        self.assertEqual(clean(everything), "".join(plain))

    def test_leaves_text_as_it_is(self) -> None:
        for text in (
            "",
            "plain text, with (signs) [and] {braces} * ! /",
            "gr\u00fc\u00df dich",
            "e\u0301 \u0928\u092e\u0938\u094d\u0924\u0947 \u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
            "\u0646\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",
            "\U0001f468\u200d\U0001f469\u200d\U0001f467 \u2764\ufe0f",
            "\u00a0\u3000",
        ):
            self.assertEqual(clean(text), text)

    def test_makes_a_space_of_a_tab(self) -> None:
        self.assertEqual(clean("a\tb\t"), "a b ")

    def test_indents_every_further_line(self) -> None:
        self.assertEqual(clean("a\nb\r\nc\u2028d\u2029e"), "a\n    b\n    c\n    d\n    e")

    def test_leaves_nothing_of_an_escape_that_acts(self) -> None:
        self.assertEqual(clean("\x1b[31mred\x1b[0m\x9b1m\x07\x08"), "[31mred[0m1m")

    def test_of_what_is_clean_changes_nothing_but_the_indent(self) -> None:
        for text in HOSTILE:
            once = clean(text)
            self.assertEqual(clean(once).replace(" ", ""), once.replace(" ", ""))
