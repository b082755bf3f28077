"""Tests of :mod:`sims.console.commands`."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from sims.console.commands import (
    HELP,
    SEED_HELP,
    About,
    AcceptIdentity,
    AskDeleteAccount,
    Command,
    Connect,
    Delete,
    DeleteAccount,
    Disconnect,
    Help,
    History,
    ListClients,
    ListConnected,
    OwnLink,
    Quit,
    Search,
    Send,
    Trust,
    Verify,
    Why,
    parse_json,
    parse_text,
    ref_of,
)
from sims.errors import Code, LocalError
from sims.test.builders import refusal

#: As the seed has them.
DASHES: dict[str, Command] = {
    "list": ListClients(),
    "list-connected": ListConnected(),
    "connect-7": Connect(to="7"),
    "connect-bob": Connect(to="bob"),
    "connect--7": Connect(to="-7"),
    "connect-anna-lena": Connect(to="anna-lena"),
    "send-7-hi": Send(to="7", text="hi"),
    "send-bob-hi there": Send(to="bob", text="hi there"),
    "send-7-well-known - or not?": Send(to="7", text="well-known - or not?"),
    "send-7--": Send(to="7", text="-"),
    "send-7-/list": Send(to="7", text="/list"),
    "send-7-list-connected": Send(to="7", text="list-connected"),
    "send-7-send-8-hi": Send(to="7", text="send-8-hi"),
    "send-7-\u00e9\U0001f600": Send(to="7", text="\u00e9\U0001f600"),
    "send- 7 - hi ": Send(to="7", text="hi"),
    "disconnect-7": Disconnect(to="7"),
    "disconnect-bob": Disconnect(to="bob"),
    "help": Help(),
    "?": Help(),
    "quit": Quit(),
    "exit": Quit(),
}
SLASHES: dict[str, Command] = {
    "/list": ListClients(),
    "/list-connected": ListConnected(),
    "/connect 7": Connect(to="7"),
    "/connect -7": Connect(to="-7"),
    "/connect anna-lena": Connect(to="anna-lena"),
    "/send 7 hi": Send(to="7", text="hi"),
    "/send -7 hi": Send(to="-7", text="hi"),
    "/send anna-lena hi there": Send(to="anna-lena", text="hi there"),
    "/send 7 well-known - or not?": Send(to="7", text="well-known - or not?"),
    "/send 7 /send 8 hi": Send(to="7", text="/send 8 hi"),
    "/send   7   hi  there": Send(to="7", text="hi  there"),
    "/disconnect 7": Disconnect(to="7"),
    "/help": Help(),
    "/?": Help(),
    "/quit": Quit(),
    "/exit": Quit(),
}
NO_COMMANDS = [
    "hello", "hello there", "-", "--", "/", "//", "//list", "/ list", "list all", "list-all", "listen", "/list all",
    "list-connected-7", "/list-connected 7", "connect", "connect-", "connect- ", "connect 7", "/connect", "/connect ",
    "/connect-7", "send", "send-", "send-7", "send-7-", "send-7- ", "send--hi", "send- -hi", "send 7 hi", "/send",
    "/send 7", "/send 7 ", "/send-7-hi", "disconnect", "disconnect-", "/disconnect", "help me", "help-me", "/help me",
    "quit-now", "/quit now", "\u00e9", "\x00", '{"do":"list"}',
]  # fmt: skip

JSON: dict[str, Command] = {
    '{"do":"list"}': ListClients(),
    '{"do":"connect","to":"bob"}': Connect(to="bob"),
    '{"do":"connect","to":7}': Connect(to=7),
    '{"do":"connect","to":-7}': Connect(to=-7),
    '{"do":"send","to":"7","text":"hi"}': Send(to="7", text="hi"),
    '{"do":"send","to":7,"text":"a-b\\n\\u00e9\\ud83d\\ude00"}': Send(to=7, text="a-b\n\u00e9\U0001f600"),
    '{"do":"send","to":7,"text":""}': Send(to=7, text=""),
    '{"do":"send","to":7,"text":"\u00e9"}': Send(to=7, text="\u00e9"),
    '{"text":"hi","to":7,"do":"send"}': Send(to=7, text="hi"),
    '{"do":"disconnect","to":7}': Disconnect(to=7),
    '{"do":"quit"}': Quit(),
    ' {"do" : "quit"} ': Quit(),
    '{"do":"list","ref":"a"}': ListClients(ref="a"),
    '{"do":"list","ref":""}': ListClients(ref=""),
    '{"do":"list","ref":0}': ListClients(ref=0),
    '{"do":"list","ref":-12345678901234}': ListClients(ref=-12345678901234),
    '{"do":"list","ref":null}': ListClients(),
    '{"do":"send","to":7,"text":"hi","ref":42}': Send(to=7, text="hi", ref=42),
    '{"do":"connect","to":7,"ref":"x"}': Connect(to=7, ref="x"),
    '{"do":"disconnect","to":7,"ref":"x"}': Disconnect(to=7, ref="x"),
    '{"do":"quit","ref":"x"}': Quit(ref="x"),
    '{"do":"list","unknown":[1,{}]}': ListClients(),
    '{"do":"history","to":"bob"}': History(to="bob"),
    '{"do":"history","to":7,"limit":3,"before":"0b0b","ref":1}': History(to=7, limit=3, before="0b0b", ref=1),
    '{"do":"search","text":"words"}': Search(text="words"),
    '{"do":"search","text":"words","limit":3}': Search(text="words", limit=3),
    '{"do":"why","id":"0b0b"}': Why(id="0b0b"),
    '{"do":"delete","to":"bob"}': Delete(to="bob"),
    '{"do":"about"}': About(),
    '{"do":"delete-account","ref":"x"}': DeleteAccount(ref="x"),
}
NO_JSON_COMMANDS = [
    b"", b" ", b"list", b"null", b"1", b'"list"', b"[]", b'["list"]', b"{}", b'{"do":null}', b'{"do":1}', b'{"do":[]}',
    b'{"do":""}', b'{"do":"List"}', b'{"do":"list-connected"}', b'{"do":"help"}', b'{"do":"connect"}',
    b'{"do":"connect","to":null}', b'{"do":"connect","to":true}', b'{"do":"connect","to":1.5}',
    b'{"do":"connect","to":1.0}', b'{"do":"connect","to":[7]}', b'{"do":"connect","to":{}}', b'{"do":"send","to":7}',
    b'{"do":"send","text":"hi"}', b'{"do":"send","to":7,"text":null}', b'{"do":"send","to":7,"text":1}',
    b'{"do":"send","to":7,"text":["hi"]}', b'{"do":"disconnect"}', b'{"do":"list","ref":true}',
    b'{"do":"list","ref":1.5}', b'{"do":"list","ref":[]}', b'{"do":"list","ref":{}}', b'{"do":"list"',
    b'{"do":"list"}}', b'{"do":"list"} {"do":"quit"}', b"{'do':'list'}", b'{"do":"send","to":7,"text":"\xff"}',
    b'{"do":"send","to":7,"text":"\\ud800"}', b'{"do":"send","to":7,"text":"\n"}', b'{"do":"list","ref":NaN}',
    b'{"do":"list","x":' + b"[" * 100_000, b"[" * 100_000, b'{"do":"list","ref":' + b"9" * 5000 + b"}",
    b'{"do":"history"}', b'{"do":"history","to":7,"limit":"3"}', b'{"do":"history","to":7,"before":1}',
    b'{"do":"search"}', b'{"do":"why"}', b'{"do":"why","id":1}', b'{"do":"delete"}',
    b'\xef\xbb\xbf{"do":"list"}', '{"do":"list"}'.encode("utf-16"),
]  # fmt: skip


class TypedCommands(SynchronousTestCase):
    def test_with_dashes_are_those_of_the_seed(self) -> None:
        for line, command in DASHES.items():
            self.assertEqual(parse_text(line), command, line)

    def test_may_have_a_slash_and_spaces(self) -> None:
        for line, command in SLASHES.items():
            self.assertEqual(parse_text(line), command, line)

    def test_may_have_space_around_them(self) -> None:
        for line, command in {**DASHES, **SLASHES}.items():
            self.assertEqual(parse_text(f" \t{line} \r\n"), command, line)

    def test_may_have_verbs_in_capitals(self) -> None:
        for line, command in (
            ("LIST", ListClients()),
            ("Connect-Bob", Connect(to="Bob")),
            ("SEND-Bob-Hi", Send(to="Bob", text="Hi")),
            ("/Send Bob Hi", Send(to="Bob", text="Hi")),
            ("/QUIT", Quit()),
        ):
            self.assertEqual(parse_text(line), command, line)

    def test_have_no_ref(self) -> None:
        for line in {**DASHES, **SLASHES}:
            command = parse_text(line)
            assert command is not None
            self.assertIsNone(command.ref)

    def test_empty_lines_are_none(self) -> None:
        for line in ("", " ", "\t", "\r\n", "\u2003"):
            self.assertIsNone(parse_text(line))

    def test_anything_else_is_refused(self) -> None:
        for line in NO_COMMANDS:
            try:
                self.assertIs(refusal(LocalError, parse_text, line).code, Code.MALFORMED, line)
            except AssertionError:
                self.fail(f"taken: {line!r}: {parse_text(line)}")

    def test_what_is_missing_is_said(self) -> None:
        for line, said in (
            ("connect", "connect-ID or /connect ID"),
            ("/disconnect", "disconnect-ID or /disconnect ID"),
            ("send", "send-ID"),
            ("send-7", "send-ID-text or /send ID text"),
            ("hello", "help"),
        ):
            self.assertIn(said, refusal(LocalError, parse_text, line).text)

    def test_are_all_in_the_help(self) -> None:
        for verb in ("list", "connect-ID", "list-connected", "send-ID-text", "disconnect-ID", "help", "quit"):
            self.assertIn(f"\n{verb} ", f"\n{SEED_HELP}")
        for line in HELP.splitlines()[:-1]:
            example = line[:26].strip().replace("NAME", "bob")
            self.assertIsNotNone(parse_text(example), example)

    def test_of_sims_2(self) -> None:
        for line, command in (
            ("/link", OwnLink()),
            ("link", OwnLink()),
            ("/verify bob", Verify(to="bob")),
            ("verify-bob", Verify(to="bob")),
            ("/trust bob", Trust(to="bob")),
            ("trust-bob", Trust(to="bob")),
            ("/accept-identity bob", AcceptIdentity(to="bob")),
            ("accept-identity-bob", AcceptIdentity(to="bob")),
        ):
            found = parse_text(line)
            self.assertEqual(found, command, line)
            self.assertIs(type(found), type(command), line)
        for line in ("/verify", "trust", "/accept-identity", "accept-identity-"):
            refusal(LocalError, parse_text, line)

    def test_of_what_was_said_and_the_account(self) -> None:
        for line, command in (
            ("/history bob", History(to="bob")),
            ("/history bob 7", History(to="bob", limit=7)),
            ("/history 7", History(to="7")),
            ("/history anna lena 7", History(to="anna lena", limit=7)),
            ("history-bob", History(to="bob")),
            ("history-bob-7", History(to="bob", limit=7)),
            ("history-anna-lena", History(to="anna-lena")),
            ("/search well-known words", Search(text="well-known words")),
            ("search-well-known", Search(text="well-known")),
            ("/why 0b0b", Why(id="0b0b")),
            ("why-0b0b", Why(id="0b0b")),
            ("/delete bob", Delete(to="bob")),
            ("delete-bob", Delete(to="bob")),
            ("/about", About()),
            ("about", About()),
            ("/delete-account", AskDeleteAccount()),
            ("delete-account", AskDeleteAccount()),
            ("/delete-account yes", DeleteAccount()),
            ("delete-account-yes", DeleteAccount()),
            ("/delete account", Delete(to="account")),
        ):
            found = parse_text(line)
            self.assertEqual(found, command, line)
            self.assertIs(type(found), type(command), line)
        for line in (
            *(
                "/history",
                "history-",
                "/search",
                "search-",
                "/why",
                "why-",
                "/delete",
                "delete-",
                "/about x",
                "about-x",
            ),
            *("/delete-account no", "delete-account-no", "/delete-account yes please"),
        ):
            self.assertIs(refusal(LocalError, parse_text, line).code, Code.MALFORMED, line)


class JsonCommands(SynchronousTestCase):
    def test_are_read(self) -> None:
        for line, command in JSON.items():
            found = parse_json(line.encode("utf-8"))
            self.assertEqual(found, command, line)
            self.assertIs(type(found), type(command), line)

    def test_keep_the_type_of_a_recipient_and_of_a_ref(self) -> None:
        for value in (7, "7"):
            found = parse_json(json.dumps({"do": "connect", "to": value, "ref": value}).encode("ascii"))
            assert isinstance(found, Connect)
            self.assertEqual([type(found.to), type(found.ref)], [type(value)] * 2)

    def test_anything_else_is_refused(self) -> None:
        for line in NO_JSON_COMMANDS:
            try:
                error = refusal(LocalError, parse_json, line)
            except AssertionError:
                self.fail(f"taken: {line[:100]!r}")
            self.assertIs(error.code, Code.MALFORMED, line[:100])
            self.assertLess(len(error.text), 500)

    def test_what_is_wrong_is_said(self) -> None:
        self.assertIn("text", refusal(LocalError, parse_json, b'{"do":"send","to":7}').text)
        self.assertIn("do", refusal(LocalError, parse_json, b'{"do":"nothing"}').text)
        self.assertIn("JSON", refusal(LocalError, parse_json, b"list").text)


class Refs(SynchronousTestCase):
    def test_are_found_in_what_is_no_command(self) -> None:
        for line, ref in (
            (b'{"do":"nothing","ref":"a"}', "a"),
            (b'{"ref":7}', 7),
            (b'{"do":"send","ref":"\\u00e9"}', "\u00e9"),
            (b'{"do":"list","ref":0}', 0),
        ):
            self.assertEqual(ref_of(line), ref)
            self.assertIs(type(ref_of(line)), type(ref))

    def test_are_none_where_there_are_none(self) -> None:
        for line in (
            b"", b"list", b"[]", b'["ref"]', b"null", b"7", b'"ref"', b"{}", b'{"ref":null}', b'{"ref":true}',
            b'{"ref":1.5}', b'{"ref":[]}', b'{"ref":{}}', b'{"ref":"a"', b'{"ref":"\xff"}', b"[" * 100_000,
            b'{"ref":' + b"9" * 5000 + b"}", b'{"ref":NaN}',
        ):  # fmt: skip
            self.assertIsNone(ref_of(line), line[:100])

    def test_of_a_command_are_its_ref(self) -> None:
        for line, command in JSON.items():
            self.assertEqual(ref_of(line.encode("utf-8")), command.ref)

    def test_of_anything_are_found_or_none(self) -> None:
        for line in NO_JSON_COMMANDS:
            self.assertIsInstance(ref_of(line), str | int | None)
