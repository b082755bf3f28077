"""Properties of :mod:`sims.console`: no line of input and no word of a peer does more than it may."""

from __future__ import annotations

import contextlib
import json

from twisted.trial.unittest import SynchronousTestCase

from sims.client.events import Contact, Message, Said
from sims.console.commands import Command, Send, parse_json, parse_text, ref_of
from sims.console.view import said_to_text, to_json, to_text
from sims.errors import LocalError
from sims.test.builders import NO_HYPOTHESIS

try:
    from hypothesis import HealthCheck, given, settings
    from hypothesis import strategies as st
except ImportError:

    class Properties(SynchronousTestCase):
        skip = NO_HYPOTHESIS

        def test_properties(self) -> None:
            """Not without hypothesis."""

else:
    many = settings(
        deadline=None, derandomize=True, max_examples=60, database=None, suppress_health_check=list(HealthCheck)
    )
    #: Texts in which lines end in every way there is.
    words = st.lists(
        st.text(max_size=8)
        | st.sampled_from(["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\v", "\x1b[2K", "* x", "! x"]),
        max_size=8,
    ).map("".join)
    ends = st.sampled_from(["\n", "\r", "\r\n", "\u2028", "\u2029", "\x85", "\v", "\n    ", "\n\u200b"])
    #: Lines of a history.
    said = st.sampled_from(
        [
            said_to_text(Said(id="0b" * 16, peer=Contact("9", "bob"), ours=ours, text="hi", state="came", time=0))
            for ours in (False, True)
        ]
    )
    verbs = st.sampled_from(
        ["send", "connect", "list", "disconnect", "quit", "help", "/send", "/connect", "", "-", " "]
    )

    class Input(SynchronousTestCase):
        @many
        @given(line=st.text(max_size=60) | st.lists(verbs | st.text(max_size=5), max_size=6).map("-".join))
        def test_typed_is_a_command_or_nothing_or_refused(self, line: str) -> None:
            try:
                command = parse_text(line)
            except LocalError:
                return
            self.assertTrue(isinstance(command, Command) if line.strip() else command is None)

        @many
        @given(line=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
        def test_of_a_program_is_a_command_or_refused(self, line: bytes) -> None:
            self.assertIsInstance(ref_of(line), str | int | None)
            with contextlib.suppress(LocalError):
                self.assertIsInstance(parse_json(line), Command)

        @many
        @given(to=st.integers(0, 10**18) | st.text("abcXYZ_.", min_size=1), text=st.text(min_size=1))
        def test_of_a_text_is_that_text(self, to: int | str, text: str) -> None:
            line = json.dumps({"do": "send", "to": to, "text": text, "ref": to})
            self.assertEqual(parse_json(line.encode("ascii")), Send(to=to, text=text, ref=to))
            if text.strip():
                for typed in (f"send-{to}-{text}", f"/send {to} {text}"):
                    self.assertEqual(parse_text(typed), Send(to=str(to), text=text.strip()))

    class Output(SynchronousTestCase):
        @many
        @given(name=words, text=words)
        def test_has_one_line_of_ours_and_indented_ones(self, name: str, text: str) -> None:
            shown = to_text(Message(sender=Contact("8", name), text=text, id="m"))
            assert shown is not None
            first, *others = f"{shown}.".splitlines()
            self.assertFalse(first.startswith("    "))
            for line in others:
                self.assertTrue(line.startswith("    "), repr(shown))

        @many
        @given(
            name=words | said.map(lambda line: line[:32]),
            text=words | st.lists(said | ends, max_size=6).map("".join),
        )
        def test_is_taken_for_no_line_of_a_history(self, name: str, text: str) -> None:
            shown = to_text(Message(sender=Contact("8", name), text=text, id="0b0b0b0b", confirmed=True))
            kept = Said(id="0b" * 16, peer=Contact("8", name), ours=False, text=text, state="came", time=0)
            lines = f"{shown}.".splitlines() + f"{said_to_text(kept)}.".splitlines()[1:]
            for line in lines:
                self.assertNotEqual(line[:1], "[", repr(shown))
            self.assertRegex(said_to_text(kept), r"\A\[1970-01-01 00:00:00 UTC 0b0b0b0b\] ")

        @many
        @given(name=words, text=words)
        def test_for_programs_is_one_line_that_keeps_everything(self, name: str, text: str) -> None:
            line = to_json(Message(sender=Contact("8", name), text=text, id="m"))
            self.assertEqual(line.splitlines(), [line])
            shown = json.loads(line)
            self.assertEqual((shown["text"], shown["from"]["name"]), (text, name))
