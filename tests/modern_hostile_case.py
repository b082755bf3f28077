"""What tests of the real console behind a hostile relay have in common."""

from __future__ import annotations

import functools
import time

from tests.modern_processes import ModernConsole, ModernTestCase
from tests.peers.modern_client import ModernClient
from tests.peers.modern_hostile import HostileServer


class Hostile(ModernTestCase):
    """A console behind a hostile server, on plain TCP; every test has peers of its own."""

    #: Seconds in which something would have happened, if it were to.
    quiet = 0.3

    def setUp(self) -> None:
        super().setUp()
        self.server: HostileServer = self.hostile_server()
        self.texts: dict[str, list[tuple[str, bytes | None]]] = {}

    def join(self, *names: str) -> tuple[ModernConsole, list[ModernClient]]:
        """A console, and independent clients."""
        return self.console(self.server.link(), "console"), [self.client(self.server.link(), name) for name in names]

    def settle(self) -> None:
        """Wait until nothing has come and nothing has waited for a while."""
        since, count = time.monotonic(), -1
        while time.monotonic() - since < self.quiet:
            with self.server.lock:
                busy = any(account.mailbox for account in self.server.accounts.values() if account.wire)
                if busy or len(self.server.inners) != count:
                    since, count = time.monotonic(), len(self.server.inners)
            time.sleep(0.01)

    def from_console(self, console: ModernConsole, peer: ModernClient, text: str) -> None:
        """A text, without waiting for anything."""
        console.do("send", to=peer.id, text=text, ref=f"{peer.name} {text}")
        self.texts.setdefault(peer.id, []).append((text, None))

    def from_peer(self, console: ModernConsole, peer: ModernClient, text: str) -> None:
        """A text the other way, without waiting for anything."""
        self.texts.setdefault(peer.id, []).append((text, peer.send(console.id, text)))

    def nothing_lost(self, console: ModernConsole, peer: ModernClient, delivered: bool = True) -> None:
        """Everything that was sent between these two is shown once, and nothing else."""
        for text, sent in self.texts[peer.id]:
            if sent is None:
                self.wait_for(functools.partial(self.is_shown, text, console, peer), f"{text} at {peer.name}")
            else:
                self.wait_for(functools.partial(self.is_told, text, console, peer), f"{text} at the console")
        if delivered:
            for text, sent in self.texts[peer.id]:
                if sent is None:
                    console.take("state", state="delivered", ref=f"{peer.name} {text}")
                else:
                    peer.wait_delivered(console.id, sent)
        outward = [text for text, sent in self.texts[peer.id] if sent is None]
        inward = [text for text, sent in self.texts[peer.id] if sent is not None]
        self.assertEqual(sorted(peer.texts(console.id)), sorted(outward))
        self.assertEqual(sorted(console.messages(peer.id)), sorted(inward))

    @staticmethod
    def is_shown(text: str, console: ModernConsole, peer: ModernClient) -> bool:
        return text in peer.texts(console.id)

    @staticmethod
    def is_told(text: str, console: ModernConsole, peer: ModernClient) -> bool:
        return text in console.messages(peer.id)

    def exchange(self, console: ModernConsole, peer: ModernClient, console_opens: bool, round_: str = "") -> None:
        """Three texts, the opener's first, waiting for what is under way after each."""
        for number, from_console in enumerate((console_opens, not console_opens, console_opens)):
            say = self.from_console if from_console else self.from_peer
            say(console, peer, f"{round_}text {number}")
            self.settle()
