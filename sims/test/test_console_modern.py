"""Tests of :mod:`sims.console.shell` with a client of sims/2: commands to events, and how it leaves."""

from __future__ import annotations

import json
from typing import Any

from sims.console import shell
from sims.console.shell import Shell
from sims.test.modern_world import User, WorldTestCase


class ShellTests(WorldTestCase):
    """A shell in JSON mode; ``bob`` has a client without."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")
        self.written: list[dict[str, Any]] = []
        self.left: list[int] = []
        self.shell = self.shell_of(self.ann)

    def shell_of(self, user: User) -> Shell:
        def write(text: str) -> None:
            self.written.append(json.loads(text))

        found = Shell(json=True, clock=self.world.clock, write=write, leave=self.left.append)
        found.client = user.client
        user.client.on_event = found.show
        return found

    def do(self, do: str, **fields: object) -> list[dict[str, Any]]:
        """A command, and what is written of it within a second."""
        before = len(self.written)
        self.shell.line(json.dumps({"do": do, **fields}).encode())
        self.world.run_for(1)
        return self.written[before:]

    def test_commands(self) -> None:
        """Each command's events, with its ref where they come of it."""
        kinds = [(told["event"], told.get("ref")) for told in self.do("send", to="bob", text="hello", ref="s")]
        self.assertEqual(
            kinds,
            [("state", "s"), ("connected", None), ("connected", None), ("state", "s"), ("state", "s")],
        )
        (link,) = self.do("link", ref=1)
        self.assertEqual((link["event"], link["ref"]), ("link", 1))
        (number,) = self.do("verify", to="bob", ref=2)
        self.assertEqual((number["event"], len(number["number"])), ("safety-number", 71))
        (trusted,) = self.do("trust", to=self.bob.id, ref=3)
        self.assertEqual((trusted["event"], trusted["peer"]["name"]), ("trusted", "bob"))
        (connected,) = self.do("connect", to="bob", ref=4)
        self.assertEqual((connected["verified"], connected["confirmed"], connected["ref"]), (True, True, 4))
        self.assertEqual(self.do("list", ref=5), [{"event": "list", "clients": [], "ref": 5}])
        (closed,) = self.do("disconnect", to="bob", ref=6)
        self.assertEqual((closed["event"], closed["ref"]), ("disconnected", 6))
        (refused,) = self.do("accept-identity", to="bob", ref=7)
        self.assertEqual((refused["event"], refused["code"], refused["ref"]), ("error", "policy", 7))
        (bad,) = self.do("send", to="bob", ref=8)
        self.assertEqual((bad["event"], bad["code"], bad["ref"]), ("error", "malformed", 8))

    def test_what_was_said(self) -> None:
        """History, search and why, each with its ref; then it is deleted."""
        states = self.do("send", to="bob", text="hello world")
        number = states[0]["id"]
        (history,) = self.do("history", to="bob", ref=1)
        (found,) = self.do("search", text="wor", ref=2)
        self.assertEqual((history["event"], history["to"]["name"], history["ref"]), ("history", "bob", 1))
        self.assertEqual((found["text"], found["messages"], found["ref"]), ("wor", history["messages"], 2))
        (message,) = history["messages"]
        self.assertEqual((message["id"], message["text"], message["state"]), (number, "hello world", "delivered"))
        (why,) = self.do("why", id=number[:8], ref=3)
        self.assertEqual((why["event"], why["id"], why["state"], why["ref"]), ("why", number, "delivered", 3))
        self.assertEqual([*why["times"]], ["queued", "accepted", "delivered"])
        (deleted,) = self.do("delete", to="bob", ref=4)
        self.assertEqual((deleted["event"], deleted["peer"]["name"], deleted["ref"]), ("deleted", "bob", 4))
        self.assertEqual(self.do("search", text="hello")[0]["messages"], [])
        for do, fields, code in (
            ("why", {"id": number}, "unknown-recipient"),
            ("why", {"id": "x"}, "malformed"),
            ("history", {"to": "bob", "limit": 0}, "malformed"),
            ("delete", {"to": "nobody"}, "unknown-recipient"),
        ):
            (refused,) = self.do(do, ref=5, **fields)
            self.assertEqual((refused["event"], refused["code"], refused["ref"]), ("error", code, 5))

    def test_account(self) -> None:
        """What the server keeps; then it is to forget us, and the console leaves."""
        (about,) = self.do("about", ref=1)
        self.assertEqual((about["event"], about["facts"]["name"], about["ref"]), ("about", "ann", 1))
        (deleted,) = self.do("delete-account", ref=2)
        self.assertEqual((deleted, self.left), ({"event": "account-deleted", "ref": 2}, [0]))

    def test_a_person_is_asked_first(self) -> None:
        """Of an account that is to be deleted: nothing happens before they have said yes."""
        lines: list[str] = []
        typed = Shell(json=False, clock=self.world.clock, write=lines.append, leave=self.left.append)
        typed.client, self.ann.client.on_event = self.ann.client, typed.show
        typed.line(b"/delete-account")
        self.world.run_for(1)
        self.assertIn("/delete-account yes", lines[-1])
        self.assertEqual((len(lines), self.left), (1, []))
        typed.line(b"/delete-account yes")
        self.world.run_for(1)
        self.assertEqual((lines[1:], self.left), (["* the server has forgotten you"], [0]))

    def test_end_of_input(self) -> None:
        """It waits for what is under way, and leaves."""
        self.shell.line(b'{"do":"send","to":"bob","text":"hello"}')
        self.shell.end_of_input()
        self.assertEqual(self.left, [])
        self.world.run_for(1)
        self.assertEqual((self.left, self.bob.texts()), ([0], ["hello"]))

    def test_end_of_input_offline(self) -> None:
        """Not for ever: it says how much is left, which goes the next time."""
        self.ann.way.refusing = True
        self.ann.cut()
        self.world.run_for(1)
        self.shell.line(b'{"do":"send","to":"bob","text":"hello"}')
        self.shell.end_of_input()
        self.world.run_for(shell.LEAVE_TIMEOUT + 0.1)
        self.assertEqual((self.left, self.written[-1]["code"]), ([1], "unavailable"))

    def test_gives_up(self) -> None:
        """A refusal that stays ends it, with the exit status 1; a disk that is full does not."""
        self.ann.store.full = True
        self.shell.line(b'{"do":"send","to":"bob","text":"hello"}')
        self.world.run_for(5)
        self.assertEqual((self.written[-1]["event"], self.left), ("error", []))
        self.ann.store.full = False
        self.world.run_for(40)
        self.assertEqual(self.bob.texts(), ["hello"])
        User(self.world, "ann", self.ann.store.copy(), seed="other").start()
        self.world.run_for(5)
        self.assertIn("replaced", [told.get("code") for told in self.written])
        self.assertEqual(self.left, [1])
