"""Clients that take the time, the connections or the memory of the real server."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time

from tests.hostile import END, SOON, HostileTestCase, connect_1
from tests.peers.seed_peer import FrameReader, SeedPeer, encode
from tests.processes import TIMEOUT
from tests.talk import next_event


class ResourceTests(HostileTestCase):
    """Clients that take time, connections or memory."""

    def test_slowness(self) -> None:
        """Half a frame and silence, byte by byte, and 200 handshakes that go no further: each has its time."""
        slow_session = self.start_peer(self.port, "slow", 601)
        slow_session.sock.sendall(b'{"type": "secure", ')
        in_session = self.meanwhile(self.drip, slow_session.sock, b"x")
        sockets = [self.dial() for _ in range(200)]
        starts = (b"", b"{", encode(connect_1(id=10_000))[:40], b"")
        began = time.monotonic()
        for number, sock in enumerate(sockets):
            full = encode(connect_1(id=10_000 + number)) + END
            sock.sendall(full if number % 2 else starts[number // 2 % 4])
        before_session = self.meanwhile(self.drip, self.dial(), b" ")
        newcomer = self.start_peer(self.port, "newcomer", 602)
        self.pair.check()
        self.assertEqual({entry["id"] for entry in newcomer.list()}, {*self.pair.ids, 500, 601, 602})
        # Ten seconds for a handshake.
        for sock in sockets:
            left = max(1.0, began + SOON - time.monotonic())
            self.assertTrue(select.select([sock], [], [], left)[0], "a handshake that goes no further is still there")
            self.assertLessEqual({frame.get("phase") for frame in self.refused(sock, "a handshake")}, {2})
        self.assertGreater(time.monotonic() - began, 5)
        self.assertLess(before_session.result(TIMEOUT), SOON)
        # Thirty for a frame.
        took = in_session.result(TIMEOUT)
        self.assertTrue(20 < took < 50, took)
        self.assertEqual([inner.get("code") for inner in self.refused_in_session(slow_session, "")], ["unavailable"])
        newcomer.list()
        self.pair.check()
        self.server.check_log()

    def drip(self, sock: socket.socket, byte: bytes) -> float:
        """Send a byte now and then until there is an answer or an end; gives how long that took."""
        began = time.monotonic()
        while time.monotonic() - began < TIMEOUT and not select.select([sock], [], [], 0.25)[0]:
            sock.sendall(byte)
        return time.monotonic() - began

    def test_reader_that_does_not_read(self) -> None:
        """Its senders have to wait, others do not; memory stays bounded; all of it arrives when it reads again."""
        lazy = SeedPeer("127.0.0.1", self.port, "lazy", 610, timeout=TIMEOUT)
        lazy.sock = socket.socket()
        lazy.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        lazy.sock.settimeout(TIMEOUT)
        lazy.sock.connect(("127.0.0.1", self.port))
        lazy.reader = FrameReader(lazy.sock)
        self.addCleanup(lazy.close)
        lazy.handshake()
        lazy.list()
        count, text = 120, "x" * 30_000
        senders = [self.start_peer(self.port, f"sender{n}", n) for n in (611, 612, 613)]
        for sender in senders:
            opened = self.meanwhile(next_event, lazy, "opened", sender.id)
            sender.open(610)
            opened.result(TIMEOUT)
            sender.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 65_536)
            # It sends on, whether or not anybody shows that it has its keys.
            sender.channel.limit = sender.talks[610].limit = None
        memory = self.server.memory
        progress = [0] * len(senders)
        stuck = threading.Condition()

        def send(place: int, sender: SeedPeer) -> None:
            for number in range(count):
                sender.send_text(610, f"{number} {text}")
                with stuck:
                    progress[place] += 1
                    stuck.notify_all()
            for _ in range(count):
                sender.wait_ack(610, TIMEOUT)

        sending = [self.meanwhile(send, place, sender) for place, sender in enumerate(senders)]
        with stuck:
            while stuck.wait(1.5):  # until nobody has got further for a while
                pass
        self.assertLess(
            max(progress), count, f"somebody could send everything to a client that reads nothing: {progress}"
        )
        self.assertLess(self.server.memory - memory, 32 * 2**20)
        self.pair.check()
        fresh = self.start_peer(self.port, "fresh", 614)
        self.assertIn(614, [entry["id"] for entry in fresh.list()])
        came: dict[int, list[str]] = {sender.id: [] for sender in senders}
        for _ in range(count * len(senders)):
            _, sender_id, came_text = next_event(lazy, "text")
            came[sender_id].append(came_text)
        # Its acknowledgements go on being sent while it waits for its own turn.
        done = threading.Event()
        serving = self.meanwhile(self.serve, lazy, done)
        for future in sending:
            future.result(TIMEOUT)
        done.set()
        serving.result(TIMEOUT)
        for sender in senders:
            self.assertEqual(came[sender.id], [f"{number} {text}" for number in range(count)])
        self.assertLess(self.server.memory - memory, 32 * 2**20)
        self.pair.check()
        self.server.check_log()

    def serve(self, peer: SeedPeer, done: threading.Event) -> None:
        """Let a client go on with what it has to do."""
        while not done.is_set():
            with contextlib.suppress(TimeoutError):
                peer.serve_one(0.2)
