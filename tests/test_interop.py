"""The real server and console with an independent client, an independent server, and a reader like the original's."""

from __future__ import annotations

import functools
import select
import signal
import socket
from typing import TYPE_CHECKING

from tests.peers.seed_peer import SPECS, FrameReader, SeedPeer
from tests.peers.seed_server import SeedServer
from tests.processes import TIMEOUT, Console, ProcessTestCase
from tests.talk import next_event, say

TEXTS = (
    "hello",
    "naïve, 你好, שלום, 👩‍👩‍👧, \u0000\u001b[31m",
    "{}",
    '""',
    "null",
    '{"type": "ack", "src": 1, "dst": 2, "data": null}',
    'two\n\nlines - with-dashes \\ and "quotes"',
    " ",
    "x" * 30_000,
)


class _Talks(ProcessTestCase):
    """Conversations of a console with an independent client, driven from here."""

    #: Seconds that opening a conversation may take.
    patience = TIMEOUT

    def converse(self, console: Console, peer: SeedPeer, texts: tuple[str, ...] = TEXTS) -> None:
        """Texts both ways, one at a time, each acknowledged."""
        me = int(console.id)
        for text in texts:
            ref = f"ref {text[:8]}"
            console.do("send", to=str(peer.id), text=text, ref=ref)
            self.assertEqual(next_event(peer, "text", me)[2], text)
            self.assertEqual(console.take("state", state="delivered", ref=ref)["to"]["id"], str(peer.id))
            peer.send_text(me, text)
            told = console.take("message")
            self.assertEqual((told["from"]["id"], told["text"]), (str(peer.id), text))
            peer.wait_ack(me)

    def opened_by_peer(self, console: Console, peer: SeedPeer, spec: str) -> None:
        """The peer opens a conversation with the console."""
        self.assertEqual(peer.open(int(console.id), self.patience), spec)
        self._check_connected(console, peer, spec)

    def opened_by_console(self, console: Console, peer: SeedPeer, spec: str) -> None:
        """The console opens a conversation with the peer."""
        console.do("connect", to=str(peer.id))
        opened = next_event(peer, "opened", int(console.id), timeout=self.patience)
        self.assertEqual(opened[2:], (spec, "responder"))
        self._check_connected(console, peer, spec)

    def closed_by_peer(self, console: Console, peer: SeedPeer) -> None:
        """The peer closes the conversation."""
        peer.disconnect(int(console.id))
        self.assertEqual(console.take("disconnected")["peer"]["id"], str(peer.id))

    def closed_by_console(self, console: Console, peer: SeedPeer) -> None:
        """The console closes the conversation."""
        console.do("disconnect", to=str(peer.id))
        next_event(peer, "disconnect", int(console.id))
        self.assertEqual(console.take("disconnected")["peer"]["id"], str(peer.id))

    def _check_connected(self, console: Console, peer: SeedPeer, spec: str) -> None:
        told = console.take("connected")
        self.assertEqual((told["peer"]["id"], told["spec"], told["verified"]), (str(peer.id), spec, False))


if TYPE_CHECKING:
    _Mixin = _Talks
else:
    _Mixin = object


class _SpecTests(_Mixin):
    """Everything that a client does, under one spec. The independent client speaks no other."""

    spec = ""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.start_server()

    def peer(self, name: str, peer_id: int) -> SeedPeer:
        """An independent client."""
        peer = self.start_peer(self.server.port, name, peer_id, [self.spec])
        self.assertEqual(peer.channel.spec, self.spec)
        return peer

    def test_peers(self) -> None:
        """Two independent clients: list, open, texts with acknowledgements, disconnect; each begins once."""
        ann, bob = self.peer("ann", 1), self.peer("bob", 2)
        everybody = [{"name": "ann", "id": 1, "level": 0}, {"name": "bob", "id": 2, "level": 0}]
        self.assertEqual(ann.list(), everybody)
        self.assertEqual(bob.list(), everybody[::-1])
        for first, second in ((ann, bob), (bob, ann)):
            opened = self.meanwhile(next_event, second, "opened", first.id)
            self.assertEqual(first.open(second.id), self.spec)
            self.assertEqual(opened.result(TIMEOUT)[2:], (self.spec, "responder"))
            for text in TEXTS:
                say(first, second, text)
                say(second, first, text)
            first.disconnect(second.id)
            next_event(second, "disconnect", first.id)
        self.server.check_log()

    def test_peers_open_at_once(self) -> None:
        """Both ends open a conversation, and both phase 1s are under way before either is relayed."""
        ann, bob = self.peer("ann", 1), self.peer("bob", 2)
        self.server.send_signal(signal.SIGSTOP)
        sent = ann.sent + bob.sent
        opened = [self.meanwhile(ann.open, 2), self.meanwhile(bob.open, 1)]
        self.wait_for(lambda: ann.sent + bob.sent == sent + 2, "both phase 1s")
        self.server.send_signal(signal.SIGCONT)
        self.assertEqual([future.result(TIMEOUT) for future in opened], [self.spec, self.spec])
        say(ann, bob, "one")
        say(bob, ann, "two")
        self.server.check_log()

    def test_console(self) -> None:
        """The console and an independent client: each opens, talks and closes."""
        bob = self.peer("bob", 2)
        console = self.start_console(self.server.port, "ann", "--specs", self.spec)
        self.assertEqual(console.take("ready")["spec"], self.spec)
        console.do("list")
        self.assertEqual(console.take("list")["clients"], [console.contact(), {"id": "2", "name": "bob"}])
        self.opened_by_console(console, bob, self.spec)
        self.converse(console, bob)
        self.closed_by_peer(console, bob)
        self.opened_by_peer(console, bob, self.spec)
        self.converse(console, bob)
        self.closed_by_console(console, bob)
        self.server.check_log()

    def test_console_opens_at_once(self) -> None:
        """The console and an independent client open at once; the lower id is the console's, then the other's."""
        for peer_id, own_id in ((50, 1), (51, 99)):
            peer = self.peer(f"peer{peer_id}", peer_id)
            args = ["--id", str(own_id), "--specs", self.spec]
            console = self.start_console(self.server.port, f"ann{own_id}", *args).ready()
            console.do("list")
            console.take("list")
            self.server.send_signal(signal.SIGSTOP)
            opened = self.meanwhile(peer.open, own_id)
            console.do("send", to=str(peer_id), text="first")
            console.take("state", state="queued")
            self.wait_for(functools.partial(peer.openings.__contains__, own_id), "the peer's phase 1")
            self.server.send_signal(signal.SIGCONT)
            self.assertEqual(opened.result(TIMEOUT), self.spec)
            self.assertEqual(next_event(peer, "text", own_id)[2], "first")
            console.take("state", state="delivered")
            self.converse(console, peer, TEXTS[:3])
            self.assertEqual(len(console.all("connected")), 1)
        self.server.check_log()

    def test_independent_server(self) -> None:
        """Two consoles on an independent server that speaks nothing else."""
        with SeedServer([self.spec]) as server:
            ann = self.start_console(server.port, "ann", "--specs", self.spec).ready()
            bob = self.start_console(server.port, "bob", "--specs", self.spec).ready()
            ann.do("list")
            self.assertEqual(ann.take("list")["clients"], [ann.contact(), bob.contact()])
            ann.do("send", to="bob", text=TEXTS[1])
            self.assertEqual(bob.take("message")["text"], TEXTS[1])
            ann.take("state", state="delivered")
            bob.do("send", to=ann.id, text=TEXTS[-1])
            self.assertEqual(ann.take("message")["text"], TEXTS[-1])
            bob.take("state", state="delivered")
            self.assertEqual({told["spec"] for told in ann.all("connected") + bob.all("connected")}, {self.spec})
            ann.do("disconnect", to=bob.id)
            self.assertEqual(bob.take("disconnected")["peer"], ann.contact())
            self.assertEqual(server.bad_boxes, 0)


class Aes128CtrTests(_SpecTests, _Talks):
    """``ECDHE-AES128_CTR-SHA256``."""

    spec = "ECDHE-AES128_CTR-SHA256"


class Aes256CtrTests(_SpecTests, _Talks):
    """``ECDHE-AES256_CTR-SHA384``."""

    spec = "ECDHE-AES256_CTR-SHA384"


class Aes128OfbTests(_SpecTests, _Talks):
    """``ECDHE-AES128_OFB-SHA256``."""

    spec = "ECDHE-AES128_OFB-SHA256"


class Aes256OfbTests(_SpecTests, _Talks):
    """``ECDHE-AES256_OFB-SHA384``."""

    spec = "ECDHE-AES256_OFB-SHA384"


class OfferTests(_Talks):
    """What is offered and agreed to without ``--specs``."""

    def test_default_offer(self) -> None:
        """The console offers CTR only, and agrees to OFB when others ask for it."""
        server = self.start_server()
        console = self.start_console(server.port, "ann").ready()
        for number, spec in enumerate(SPECS):
            peer = self.start_peer(server.port, f"peer{number}", 1 + number, [spec])
            self.opened_by_peer(console, peer, spec)
            self.converse(console, peer, ("hello",))
            self.closed_by_console(console, peer)
            if "CTR" in spec:
                self.opened_by_console(console, peer, spec)
                self.converse(console, peer, ("hello",))

    def test_nothing_in_common(self) -> None:
        """A console that speaks one spec only refuses a conversation under another, with the code."""
        server = self.start_server()
        speaks, other = list(SPECS)[:2]
        console = self.start_console(server.port, "ann", "--id", "1", "--specs", speaks).ready()
        peer = self.start_peer(server.port, "bob", 2, [other])
        head = {"type": "client-connect", "src": 2, "dst": "1", "phase": 1}
        peer.send_inner({**head, "ciphers": [other, "no-such-spec"], "data": {}})
        self.assertEqual(next_event(peer, "error")[2], "no-common-spec")
        self.assertEqual(peer.errors, [{"type": "error", "code": "no-common-spec", "src": 1, "dst": 2}])
        self.assertEqual(console.take("error")["code"], "no-common-spec")
        self.assertEqual(console.all("connected"), [])


class OriginalServerTests(_Talks):
    """An independent server that, as the original, keeps no key but its last: there nothing may cross."""

    patience = 20.0

    def setUp(self) -> None:
        super().setUp()
        self.server = SeedServer(original_keys=True).start()
        self.addCleanup(self.server.stop)
        self.spec = next(iter(SPECS))

    def test_conversation(self) -> None:
        """One thing at a time: a list, conversations opened by either end, texts in turn."""
        console = self.start_console(self.server.port, "ann").ready()
        # While this peer connects, the list that the console asks for by itself is answered.
        bob = self.start_peer(self.server.port, "bob", 2)
        self._list(console, 2)
        self.opened_by_console(console, bob, self.spec)
        self.converse(console, bob)
        self.closed_by_console(console, bob)
        self.opened_by_peer(console, bob, self.spec)
        self.converse(console, bob)
        self.closed_by_peer(console, bob)
        self.assertEqual(self.server.bad_boxes, 0)

    def test_list_at_once(self) -> None:
        """A list asked for as soon as the console is ready does not cross the one that it asks for by itself."""
        console = self.start_console(self.server.port, "ann")
        console.do("list")
        console.ready()
        self._list(console, 1)
        self._list(console, 1)
        self.assertEqual(self.server.bad_boxes, 0)

    def test_opened_by_newcomer(self) -> None:
        """A peer that came after the console's last list opens a conversation with it."""
        console = self.start_console(self.server.port, "ann").ready()
        bob = self.start_peer(self.server.port, "bob", 2)
        self.opened_by_peer(console, bob, self.spec)
        self.converse(console, bob, TEXTS[:2])
        self.assertEqual(self.server.bad_boxes, 0)

    def test_opens_to_newcomer(self) -> None:
        """The console opens a conversation with a peer that came after its last list."""
        console = self.start_console(self.server.port, "ann").ready()
        bob = self.start_peer(self.server.port, "bob", 2)
        self.opened_by_console(console, bob, self.spec)
        self.converse(console, bob, TEXTS[:2])
        self.assertEqual(self.server.bad_boxes, 0)

    def _list(self, console: Console, count: int) -> None:
        console.do("list")
        self.assertEqual(len(console.take("list", self.patience)["clients"]), count)


class OriginalReader(FrameReader):
    """Reads as the original client does: one ``recv(2048)`` when there is something, nothing reassembled."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self._frames: list[bytes] = []

    def read(self, timeout: float | None) -> bytes:
        """The next frame of what came at once; all of it has to be whole frames."""
        if not self._frames:
            if not select.select([self.sock], [], [], timeout)[0]:
                raise TimeoutError("no frame in time")
            data = self.sock.recv(2048)
            if not data:
                raise EOFError("closed by the other end")
            *self._frames, rest = data.split(b"\n\n")
            if rest:
                raise AssertionError(f"{len(data)} bytes came at once, and the last frame in them is not whole")
        return self._frames.pop(0)


class OriginalClientTests(_Talks):
    """Whole frames for a client that reads as the original does. (Its routing is checked by every SeedPeer.)"""

    def original(self, port: int, name: str, peer_id: int, spec: str) -> SeedPeer:
        """A client that reads as the original does, connected."""
        peer = SeedPeer("127.0.0.1", port, name, peer_id, [spec], TIMEOUT)
        peer.dial()
        self.addCleanup(peer.close)
        peer.reader = OriginalReader(peer.sock)
        peer.handshake()
        peer.list()
        return peer

    def test_many_clients(self) -> None:
        """Under each spec, with 40 others there: the list is cut to what can be read, the asker first."""
        server = self.start_server()
        for number in range(40):
            self.start_peer(server.port, f"client № {number}", 1000 + number)
        for number, spec in enumerate(SPECS):
            name = f"original-{number}"
            peer = self.original(server.port, name, 1 + number, spec)
            for _ in range(3):
                roster = peer.list()
                self.assertEqual(roster[0], {"name": name, "id": peer.id, "level": 0})
                self.assertGreater(len(roster), 10)
                self.assertEqual(len({entry["id"] for entry in roster}), len(roster))
            peer.close()
        server.check_log()

    def test_conversations(self) -> None:
        """Conversations with its like and with the console, opened by either end."""
        server = self.start_server()
        texts = ("hello", "é" * 30, "x" * 200)
        for number, spec in enumerate(SPECS):
            ann = self.original(server.port, "ann", 10 + number, spec)
            bob = self.original(server.port, "bob", 20 + number, spec)
            for first, second in ((ann, bob), (bob, ann)):
                opened = self.meanwhile(next_event, second, "opened", first.id)
                first.open(second.id)
                opened.result(TIMEOUT)
                for text in texts:
                    say(first, second, text)
                    say(second, first, text)
                first.disconnect(second.id)
                next_event(second, "disconnect", first.id)
            console = self.start_console(server.port, f"console{number}", "--specs", spec).ready()
            self.opened_by_console(console, ann, spec)
            self.converse(console, ann, texts)
            self.closed_by_peer(console, ann)
            self.opened_by_peer(console, ann, spec)
            self.converse(console, ann, texts)
            self.closed_by_console(console, ann)
        server.check_log()
