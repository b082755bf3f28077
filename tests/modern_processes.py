"""Real processes of the two commands speaking sims/2, and independent ends beside them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.peers.modern_client import ModernClient
from tests.peers.modern_hostile import HostileServer
from tests.peers.modern_identity import Link
from tests.peers.modern_primitives import DEFAULT_SPECS
from tests.processes import TIMEOUT, Console, Place, Process, ProcessTestCase

TEXTS = (
    "hello",
    "naïve, 你好, שלום, 👩‍👩‍👧, \u0000\u001b[31m",
    "{}",
    'two\n\nlines - with-dashes \\ and "quotes"',
    " ",
    "x" * 30_000,
)


class RealServer(Process):
    """The server as a process, with a listener for TCP and one for TLS; each link is given to one client only."""

    def __init__(self, place: Place, *args: str) -> None:
        listen = [f"--listen={kind}:0:interface=127.0.0.1" for kind in ("tcp", "tls")]
        super().__init__(place, ["sims-server", "--dir", str(place.cwd / "server"), *listen, *args])
        self._given: set[str] = set()

    def link(self, tls: bool = False) -> Link:
        """A link with an invitation that nobody has used."""

        def find() -> Link | None:
            for line in self.out:
                link = Link.parse(line)
                if link.tls == tls and link.invite is not None and link.invite not in self._given:
                    self._given.add(link.invite)
                    return link
            return None

        return self.wait_until(find, "a link with a new invitation")

    def known(self, tls: bool = False) -> Link:
        """A link without an invitation."""

        def find() -> Link | None:
            return next((link for link in map(Link.parse, self.out) if link.tls == tls), None)

        return self.wait_until(find, "a link")._replace(invite=None)

    def check_log(self) -> None:
        """See to it that nothing has gone wrong inside."""
        for line in self.err:
            if "Traceback" in line or "Unhandled" in line or "#critical" in line or "#error" in line:
                raise AssertionError(self.describe("something went wrong in the server"))


class ModernConsole(Console):
    """A console in JSON mode that speaks sims/2, with a profile folder of its own."""

    def __init__(self, place: Place, link: str, name: str, *args: str, folder: Path | None = None) -> None:
        self.name, self._json = name, True
        self.events, self._events_taken = [], set()
        where = ["--dir", str(folder or place.cwd / f"profile-{name}")]
        linked = ["--link", link] if link else []
        Process.__init__(
            self, place, ["sims-client", *linked, "--name", name, *where, "--json", "--no-passphrase", *args]
        )

    def messages(self, peer: str) -> list[str]:
        """Every text shown so far of somebody."""
        return [str(told["text"]) for told in self.all("message") if told["from"]["id"] == peer]

    def check_log(self) -> None:
        """See to it that nothing has gone wrong inside."""
        for line in self.err:
            if "Traceback" in line or "Unhandled" in line or "#critical" in line:
                raise AssertionError(self.describe("something went wrong in the console"))


class ModernTestCase(ProcessTestCase):
    """A test with processes and independent ends of its own."""

    #: Seconds for what an independent client waits for.
    patience = TIMEOUT

    def real_server(self, *args: str) -> RealServer:
        return self.keep(RealServer(self.place, *args))

    def hostile_server(self, tls: bool = False, specs: Sequence[str] = DEFAULT_SPECS) -> HostileServer:
        server = HostileServer(tls, specs)
        server.start()
        self.addCleanup(server.stop)
        return server

    def client(self, link: Link | str, name: str, specs: Sequence[str] = DEFAULT_SPECS, **named: Any) -> ModernClient:
        """An independent client that is connected. It says at once what it could not open.

        It asks again for a bundle that is not there yet: a console is ready before it has published.
        """
        client = ModernClient(link, name, specs, **{"timeout": self.patience, **named})
        client.talks.unreadable_every, client.retry_after = 0, 0.3
        client.connect(10)
        self.addCleanup(client.close)
        return client

    def console(self, link: Link | str, name: str, *args: str) -> ModernConsole:
        """A console that is connected."""
        console = self.keep(ModernConsole(self.place, str(link), name, *args))
        console.ready()
        return console

    def converse(self, ann: ModernClient, bob: ModernClient, texts: Sequence[str] = TEXTS) -> None:
        """Texts both ways, one at a time, each accepted, shown once, in order, and acknowledged."""
        for text in texts:
            for one, other in ((ann, bob), (bob, ann)):
                sent = one.send(other.id, text)
                told = other.wait("text", sender=one.id)
                self.assertEqual((told["text"], told["id"], told["order"]), (text, sent, "in order"))
                one.wait_delivered(other.id, sent)
        for one in (ann, bob):
            one.wait_accepted()

    def talk(self, console: ModernConsole, peer: ModernClient, texts: Sequence[str] = TEXTS) -> None:
        """Texts both ways between a console and an independent client, one at a time, each acknowledged."""
        for number, text in enumerate(texts):
            ref = f"{peer.name} {number} {len(peer.events)}"
            self.assertEqual(self.say(console, peer, text, ref)["to"]["id"], peer.id)
            self.hear(console, peer, text)

    def say(self, console: ModernConsole, peer: ModernClient, text: str, ref: str) -> dict[str, Any]:
        """A text from the console, shown to the peer and acknowledged; gives the console's last event about it."""
        console.do("send", to=peer.id, text=text, ref=ref)
        self.assertEqual(peer.wait("text", sender=console.id)["text"], text)
        return console.take("state", state="delivered", ref=ref)

    def hear(self, console: ModernConsole, peer: ModernClient, text: str) -> None:
        """A text from the peer, shown by the console and acknowledged."""
        sent = peer.send(console.id, text)
        told = console.take("message")
        self.assertEqual((told["from"]["id"], told["text"]), (peer.id, text))
        peer.wait_delivered(console.id, sent)
