"""Yesterday's copy of a profile, put back: nothing new is lost, and both people see what happened."""

from __future__ import annotations

import shutil
import signal
import time
from typing import Any

from tests.modern_processes import ModernConsole
from tests.test_modern_console import ConsoleTestCase


class RestoredTests(ConsoleTestCase):
    def told(self, console: ModernConsole, *texts: str) -> None:
        """Each of these comes, once, and after those before it."""
        for text in texts:
            console.take("message", text=text)
        shown = [told["text"] for told in console.all("message") if told["text"] in texts]
        self.assertEqual(shown, list(texts))

    def say(self, console: ModernConsole, to: str, *texts: str) -> None:  # type: ignore[override]
        """Send these, and wait until each was delivered."""
        for text in texts:
            console.do("send", to=to, text=text, ref=text)
            console.take("state", state="delivered", ref=text)

    def test_yesterday(self) -> None:
        """What both say after the copy was put back arrives, in order and once; so does what came while she was away.

        Between the copy and its return they talk so much that every session and key of the copy is an old one.
        """
        server = self.use_server()
        ann, bob = self.console(server.link(), "ann"), self.console(server.link(), "bob")
        self.say(ann, "bob", "one", "two")
        self.say(bob, "ann", "three")
        self.assertEqual(ann.stop(signal.SIGTERM), -signal.SIGTERM)
        folder, kept = self.folder("ann"), self.place.cwd / "yesterday"
        shutil.copytree(folder, kept)

        ann = self.again("ann")
        ann.ready()
        for number in range(5):
            self.say(ann, "bob", f"today {number}")
            self.say(bob, "ann", f"today, too {number}")
        ann.do("send", to="bob", text="the last", ref="the last")
        ann.take("state", state="accepted", ref="the last")
        ann.kill()
        shutil.rmtree(folder)
        shutil.copytree(kept, folder)
        for text in ("while you were away", "and again"):
            bob.do("send", to="ann", text=text, ref=text)
            bob.take("state", state="accepted", ref=text)

        ann = self.again("ann")
        ann.ready()
        self.told(ann, "while you were away", "and again")
        before = len(bob.all("message"))
        self.say(ann, "bob", "from the copy", "and more")
        self.say(bob, "ann", "an answer")
        self.told(ann, "an answer")
        self.told(bob, "from the copy", "and more")
        new: list[dict[str, Any]] = bob.all("message")[before:]
        self.assertEqual(
            [(told["text"], told.get("order")) for told in new], [("from the copy", None), ("and more", None)]
        )
        self.assertEqual([told["peer"] for told in bob.all("began-anew")], [ann.contact()])
        for text in ("while you were away", "and again"):
            bob.take("state", state="delivered", ref=text)
        # Both go on from here as before.
        began = time.monotonic()
        self.say(ann, "bob", *(f"later {number}" for number in range(5)))
        self.assertLess(time.monotonic() - began, 20)
        for console in (ann, bob):
            self.assertEqual(console.all("error"), [])
            console.check_log()
