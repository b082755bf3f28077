"""An independent client of sims/2 on blocking sockets, with one thread that reads.

Made from the protocol page alone, so that a test can set it against an implementation with which it shares no code.
What it keeps (`talks`) outlives a connection: `close`, then `connect` again, or hand it to another client.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from tests.peers.modern_connect import ClientConnect
from tests.peers.modern_identity import Link, Public
from tests.peers.modern_primitives import DEFAULT_SPECS, Map, RefusedError, as_map, raw_field
from tests.peers.modern_stream import Wire, dial
from tests.peers.modern_talks import Answer, Talks

T = TypeVar("T")
Event = Map


class ModernClient:
    """A client. `events` is what has happened so far; `wait` takes from it.

    :ivar auto_ack: whether what was taken in is acknowledged to the server.
    :ivar retry_after: seconds after which a bundle that could not be had is asked for again, or None for never.
    :ivar answer: what phase 4 of connect held.
    """

    def __init__(
        self,
        link: str | Link,
        name: str,
        specs: Sequence[str] = DEFAULT_SPECS,
        *,
        talks: Talks | None = None,
        hop_specs: Sequence[str] = DEFAULT_SPECS,
        timeout: float = 20,
    ) -> None:
        self.link = Link.parse(link) if isinstance(link, str) else link
        self.talks, self.hop_specs, self.timeout = talks or Talks(name, specs), hop_specs, timeout
        self.name, self.id, self.auto_ack = name, self.talks.id, True
        self.retry_after: float | None = None
        self.events: list[Event] = []
        self.answer: Map = {}
        self.wire: Wire
        self._taken: set[int] = set()
        self._changed = threading.Condition(threading.RLock())
        self._answers: dict[bytes, Answer] = {}
        self._ready: dict[str, Map] = {}  # bundles fetched beforehand
        self._lists: list[Map] = []
        self._open = False
        self._reader: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether the server has something to acknowledge or to answer."""
        return bool(self.talks.outbox or self._answers)

    # --- the connection ---

    def connect(self, one_time: int = 3) -> ModernClient:
        """Dial, shake hands, publish with so many one-time keys, and send again what was not acknowledged."""
        self.dial()
        self.handshake()
        self.start()
        self.publish(one_time)
        with self._changed:
            for inner in list(self.talks.outbox.values()):
                self._send(inner)
            self.talks.retry()
        return self

    def dial(self) -> None:
        self.wire = dial(self.link.addresses[0], self.link.tls, self.timeout)

    def handshake(self) -> None:
        """The four phases; the invitation goes with the first that ends well."""
        self.talks.epoch += 1
        connect = ClientConnect(
            self.talks.identity,
            self.name,
            self.hop_specs,
            self.link.server_id,
            binding=self.wire.stream.binding,
            invite=self.link.invite,
            epoch=self.talks.epoch,
        )
        try:
            self.wire.send_frame(connect.frame1)
            self.wire.send_frame(connect.take2(self.wire.read_frame(self.timeout)))
            self.wire.hop = connect.take4(self.wire.read_frame(self.timeout))
        except Exception:
            self.wire.close()
            raise
        self.answer, self.link = connect.answer, self.link._replace(invite=None)

    def start(self) -> None:
        """Begin to read."""
        talks = self.talks
        talks.emit, talks.post, talks.fetch = self._emit, self._send, self._ask
        self._open = True
        self._reader = threading.Thread(target=self._read, args=(self.wire,), daemon=True)
        self._reader.start()

    def close(self) -> None:
        self.wire.close()
        if self._reader is not None:
            self._reader.join(self.timeout)

    # --- what a test does ---

    def publish(self, one_time: int = 3) -> None:
        """Publish a new bundle and wait for the answer."""
        self._request({"type": "publish", "data": self.talks.new_bundle(one_time)})

    def fetch(self, peer: str | None = None, name: str | None = None) -> tuple[Map, Map | None]:
        """A bundle by id or by name, checked; RefusedError with the code of an error."""
        reply = self._request({"type": "fetch", "data": {"id": peer} if peer is not None else {"name": name}})
        with self._changed:
            return self.talks.check(peer, reply)

    def prefetch(self, peer: str) -> None:
        """Fetch what the next opening of a session to somebody is made with, so that it waits for nothing."""
        self._ready[peer] = self._request({"type": "fetch", "data": {"id": peer}})

    def find(self, name: str) -> str:
        """The id that the server gives for a name."""
        bundle, _ = self.fetch(name=name)
        return Public(bundle["sign"], bundle["dh"]).id

    def ask(self, kind: str, timeout: float | None = None) -> Map:
        """The data of what answers `list` or `about`."""
        with self._changed:
            before = len(self._lists)
            self._send({"type": kind, "data": {}})

            def find() -> Map | None:
                return next((inner["data"] for inner in self._lists[before:] if inner["type"] == kind), None)

            return self._wait(find, kind, timeout)

    def send(self, peer: str, text: str) -> bytes:
        """Send a text, opening a session if there is none; gives the content's id."""
        with self._changed:
            return self.talks.say(peer, "text", body=text)

    def disconnect(self, peer: str) -> None:
        """Say that sending on the session has ended."""
        with self._changed:
            talk = self.talks.best(peer)
            self.talks.say(peer, "disconnect", talk)
            if talk is not None:
                talk.closed = True

    def wait(self, event: str, timeout: float | None = None, **fields: Any) -> Event:
        """Wait for an event with these fields that was not taken before. `sender` stands for from."""
        wanted = {"event": event, **fields}
        if "sender" in wanted:
            wanted["from"] = wanted.pop("sender")

        def find() -> Event | None:
            for index, told in enumerate(self.events):
                if index not in self._taken and all(told.get(key) == value for key, value in wanted.items()):
                    self._taken.add(index)
                    return told
            return None

        return self._wait(find, str(wanted), timeout)

    def all(self, event: str) -> list[Event]:
        """Every event of a kind so far."""
        with self._changed:
            return [told for told in self.events if told["event"] == event]

    def texts(self, peer: str) -> list[str]:
        """Every text shown so far of somebody."""
        return [told["text"] for told in self.all("text") if told["from"] == peer]

    def wait_delivered(self, peer: str, content_id: bytes, timeout: float | None = None) -> None:
        """Wait for the receipt of a content."""
        with self._changed:
            done = self.talks.delivered
            self._wait(lambda: (peer, content_id) in done or None, "a receipt", timeout)

    def wait_accepted(self, timeout: float | None = None) -> None:
        """Wait until the server has acknowledged everything."""
        with self._changed:
            talks = self.talks
            self._wait(lambda: not (talks.outbox or talks.waiting) or None, "the server's acks", timeout)

    # --- within ---

    def _wait(self, ready: Callable[[], T | None], what: str, timeout: float | None = None) -> T:
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        with self._changed:
            while (found := ready()) is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError(f"{self.name}: {what} did not come; {self.events}")
                self._changed.wait(left)
        return found

    def _retry(self) -> None:
        with self._changed:
            if self._open:
                self.talks.retry()

    def _emit(self, event: Event) -> None:
        if event["event"] == "cannot-open" and self.retry_after is not None:
            timer = threading.Timer(self.retry_after, self._retry)
            timer.daemon = True
            timer.start()
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def _send(self, inner: Map) -> None:
        """Send if there is a connection; what has a place in the outbox is sent again later."""
        if self._open:
            with contextlib.suppress(OSError):
                self.wire.send(inner)

    def _request(self, inner: Map) -> Map:
        """Send something with a mid, and wait for what answers it."""
        answers: list[tuple[Map | None, str]] = []
        with self._changed:
            mid = self.talks.draws.random("mid", 16)
            self._answers[mid] = lambda data, code: answers.append((data, code))
            self._send({"type": inner["type"], "mid": mid, "data": inner["data"]})
        data, code = self._wait(lambda: answers[0] if answers else None, f"an answer to {inner['type']}")
        if data is None:
            raise RefusedError(code, f"told about {inner['type']}")
        return data

    def _ask(self, peer: str, answer: Answer) -> None:
        if (ready := self._ready.pop(peer, None)) is not None:
            answer(ready, "")
            return
        mid = self.talks.draws.random("mid", 16)
        self._answers[mid] = answer
        self._send({"type": "fetch", "mid": mid, "data": {"id": peer}})

    def _read(self, wire: Wire) -> None:
        code = ""
        try:
            while True:
                inner = wire.read()
                with self._changed:
                    self._take(inner)
                    self._changed.notify_all()
        except (EOFError, OSError):
            pass
        except RefusedError as error:
            code = error.code
        wire.close()
        self._open = False
        self._emit({"event": "offline", "code": code})

    def _take(self, inner: Map) -> None:
        kind, data = inner.get("type"), inner.get("data")
        if kind in ("client-connect", "client-com"):
            self.talks.take(inner)
            if self.auto_ack:
                self._send({"type": "ack", "data": {"mids": [raw_field(inner, "mid", 16)]}})
        elif kind == "ack":
            for mid in as_map(data)["mids"]:
                self.talks.outbox.pop(mid, None)
                self._answer(mid, as_map(data))
                self._emit({"event": "accepted", "mid": mid})
        elif kind == "bundle":
            self._answer(raw_field(inner, "mid", 16), as_map(data))
        elif kind == "error":
            mid = inner.get("mid", as_map(data).get("mid"))
            self._emit({"event": "error", "code": as_map(data).get("code"), "mid": mid})
            if mid is not None:
                self.talks.outbox.pop(mid, None)
                self._answer(mid, None, str(as_map(data).get("code")))
        else:
            self._lists.append(inner)

    def _answer(self, mid: bytes, data: Map | None, code: str = "") -> None:
        answer = self._answers.pop(mid, None)
        if answer is not None:
            answer(data, code)
