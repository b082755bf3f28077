"""What tests do with independent clients: waiting for one event, and a pair that goes on talking."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

from tests.peers.seed_peer import Event, PeerError, SeedPeer
from tests.processes import TIMEOUT


def next_event(peer: SeedPeer, *start: object, timeout: float = TIMEOUT) -> Event:
    """Wait for the next event that begins with these values; others stay for later, in their order."""
    deadline = time.monotonic() + timeout
    others: list[Event] = []
    try:
        while True:
            event = peer.serve_one(max(0.001, deadline - time.monotonic()))
            if event[: len(start)] == start:
                return event
            others.append(event)
    except TimeoutError:
        raise AssertionError(f"{peer.name}: no event {start} within {timeout:g} seconds, but {others}") from None
    except EOFError:
        raise AssertionError(f"{peer.name}: closed before the event {start}, after {others}") from None
    finally:
        peer.events.extendleft(reversed([event for event in others if event[0] != "phase"]))


def say(sender: SeedPeer, receiver: SeedPeer, text: str) -> None:
    """One text from peer to peer, and its acknowledgement, both driven from here."""
    sender.send_text(receiver.id, text)
    event = next_event(receiver, "text", sender.id)
    if event[2] != text:
        raise AssertionError(f"{event[2]!r} came instead of {text!r}")
    sender.wait_ack(receiver.id, TIMEOUT)


class HonestPair:
    """Two independent clients that have a conversation and go on talking, each in a thread, until stopped."""

    def __init__(self, port: int, ids: tuple[int, int] = (101, 102), *, pause: float = 0.05) -> None:
        self._peers = [SeedPeer("127.0.0.1", port, f"honest{n}", n, timeout=TIMEOUT) for n in ids]
        self._pause = pause
        self._stopped = threading.Event()
        self._changed = threading.Condition()
        self._problem: BaseException | None = None
        self.rounds = 0
        for peer in self._peers:
            peer.connect()
        first, second = self._peers
        self._threads = [threading.Thread(target=self._run, args=(act,), daemon=True) for act in (self._a, self._b)]
        self._opened = threading.Event()
        for thread in self._threads:
            thread.start()
        if not self._opened.wait(TIMEOUT) or self._problem is not None:
            raise AssertionError(f"{first.name} and {second.name} could not open a conversation: {self._problem!r}")

    @property
    def ids(self) -> tuple[int, int]:
        """Their ids."""
        return self._peers[0].id, self._peers[1].id

    def check(self, bound: float = 30.0) -> None:
        """See that a whole round, begun from now on, goes through: a text and its acknowledgement each way.

        :raises AssertionError: when it does not within ``bound`` seconds.
        """
        with self._changed:
            wanted = self.rounds + 2  # the round that is under way began before
            done = self._changed.wait_for(lambda: self.rounds >= wanted or self._problem is not None, bound)
        if not done or self._problem is not None:
            raise AssertionError(f"the honest pair did not go on talking: {self._problem!r}")

    def stop(self) -> None:
        """Let them fall silent."""
        self._stopped.set()
        for peer in self._peers:
            with contextlib.suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)  # wakes up who waits for it
        for thread in self._threads:
            thread.join(TIMEOUT)
        for peer in self._peers:
            peer.close()

    def _run(self, act: object) -> None:
        try:
            if callable(act):
                act()
        except (AssertionError, OSError, EOFError, PeerError, ValueError) as error:
            with self._changed:
                if not self._stopped.is_set():
                    self._problem = error
                self._changed.notify_all()
            self._opened.set()

    def _a(self) -> None:
        mine, other = self._peers
        mine.open(other.id)
        self._opened.set()
        while not self._stopped.is_set():
            text = f"round {self.rounds}"
            mine.send_text(other.id, text)
            mine.wait_ack(other.id)
            if next_event(mine, "text", other.id)[2] != f"{text}, yes":
                raise AssertionError("another text came than was sent")
            with self._changed:
                self.rounds += 1
                self._changed.notify_all()
            self._stopped.wait(self._pause)

    def _b(self) -> None:
        other, mine = self._peers
        next_event(mine, "opened", other.id)
        while not self._stopped.is_set():
            text = next_event(mine, "text", other.id)[2]
            mine.send_text(other.id, f"{text}, yes")
            mine.wait_ack(other.id)
