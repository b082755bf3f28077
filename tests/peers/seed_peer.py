"""An independent client of the seed protocol on plain blocking sockets.

Made from the wire page alone, so that a test can set it against an implementation with which it shares no code. It
starts no threads, prints nothing, and leaves the socket (`sock`), the keys (`channel`, `talks`) and raw sending open to
hostile tests. Names in quotes in the docstrings are sections of the wire page.
"""

from __future__ import annotations

import socket
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tests.peers.seed_keys import (
    DEFAULT_SPECS,
    SPECS,
    BadBoxError,
    Channel,
    FullError,
    Json,
    Pair,
    Parts,
    PeerError,
    as_id,
    b64,
    com_data,
    com_parts,
    decode,
    encode,
    expect,
    read_remote,
    secure_frame,
    secure_parts,
    unb64,
)

__all__ = [
    "DEFAULT_SPECS",
    "SPECS",
    "BadBoxError",
    "Channel",
    "Event",
    "FrameReader",
    "FullError",
    "Json",
    "Pair",
    "Parts",
    "PeerError",
    "SeedPeer",
    "as_id",
    "b64",
    "com_data",
    "com_parts",
    "decode",
    "encode",
    "expect",
    "read_remote",
    "secure_frame",
    "secure_parts",
    "unb64",
]

Event = tuple[Any, ...]

TERMINATOR = b"\n\n"
MAX_FRAME = 65_536  # without the terminator
LIST_AFTER = 32  # secure frames received without sending one, after which a client sends a list


class FrameReader:
    """Reassembles frames from a socket ("Framing"); `largest` is the longest one so far, with its terminator."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.buffer, self.largest = sock, b"", 0

    def read(self, timeout: float | None) -> bytes:
        """The next frame without its terminator; TimeoutError, or EOFError when the other end has closed."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (end := self.buffer.find(TERMINATOR)) < 0 and len(self.buffer) <= MAX_FRAME + 1:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimeoutError("no frame in time")
            self.sock.settimeout(left)
            data = self.sock.recv(65_536)
            if not data:
                raise EOFError("closed by the other end")
            self.buffer += data
        if not 0 <= end <= MAX_FRAME:
            raise PeerError("frame too long")
        frame, self.buffer = self.buffer[:end], self.buffer[end + 2 :]
        self.largest = max(self.largest, end + 2)
        return frame


class SeedPeer:
    """A client. A timeout of None in a method means the one given here.

    It keeps the rules of "What is unsafe" for itself: own pairs and their bound (64), the list after 32 frames, phase
    1s that cross. With `auto_list` false it leaves out the second.
    """

    def __init__(
        self, host: str, port: int, name: str, id: int, specs: Sequence[str] = DEFAULT_SPECS, timeout: float = 10
    ) -> None:
        self.address, self.name, self.id, self.specs, self.timeout = (host, port), name, id, list(specs), timeout
        self.sock: socket.socket
        self.reader: FrameReader
        self.channel: Channel
        self.sent = self.acked = 0  # frames that are to be acked, and top-level acks
        self.received = self.lists_due = 0  # secure frames since the last one sent; list replies to come
        self.auto_list = True
        self.roster: list[Json] = []
        self.errors: list[Json] = []  # inner errors, whole
        self.acks: list[int] = []  # who sent the inner acks
        self.events: deque[Event] = deque()  # what happened during a wait for something else
        self.talks: dict[int, Channel] = {}  # open conversations
        self.openings: dict[int, tuple[int, str, Pair | None]] = {}  # phase last sent, spec, own pair
        # What waits for a free pair: (None, an inner message) or (peer id, a text that is not sealed yet).
        self.queue: list[tuple[int | None, Any]] = []

    def connect(self) -> None:
        """Dial, the four phases, then a secure list at once, as the original client does."""
        self.dial()
        self.handshake()
        self.list()

    def dial(self) -> None:
        self.sock = socket.create_connection(self.address, self.timeout)
        self.reader = FrameReader(self.sock)

    def close(self) -> None:
        self.sock.close()

    def handshake(self) -> None:
        """Phases 1 to 4 ("Top-level messages")."""
        head, own = {"type": "connect", "name": self.name, "id": self.id}, Pair.fresh()
        self.send_frame({**head, "phase": 1, "ciphers": self.specs, "data": {}})
        spec = self._phase(2, self.specs)["ciphers"]
        data = {"public_key": b64(own.pem), "client_random": b64(own.random)}
        self.send_frame({**head, "phase": 3, "ciphers": spec, "data": data})
        data = expect(self._phase(4, [spec]).get("data"))
        remote = read_remote(unb64(data.get("public_key")), unb64(data.get("server_random")))
        self.channel = Channel(spec, "client", own, remote)

    def _phase(self, phase: int, specs: Sequence[str]) -> Json:
        ack, obj = self.recv_frame(), self.recv_frame()
        if ack["type"] != "ack" or obj["type"] != "connect" or obj.get("phase") != phase:
            raise PeerError(f"an ack and phase {phase} expected")
        if obj.get("ciphers") not in specs:
            raise PeerError("not a spec that can be chosen")
        return obj

    def send_frame(self, obj: bytes | Json, acks: int = 0) -> None:
        """Send an object as a frame; or bytes as they are, terminator included, for which `acks` acks are to come."""
        self.sock.settimeout(self.timeout)
        self.sent += acks if isinstance(obj, bytes) else obj.get("type") != "ack"
        self.sock.sendall(obj if isinstance(obj, bytes) else encode(obj) + TERMINATOR)

    def recv_frame(self, timeout: float | None = None) -> Json:
        """The next top-level object; the original client's routing by substring must come to its type as well."""
        raw = self.reader.read(self.timeout if timeout is None else timeout)
        obj: Json = decode(raw)
        route = "connect" if b"connect" in raw else "secure" if b"secure" in raw else "ack"
        self.acked += route == "ack"
        if obj.get("type") != route or self.acked > self.sent:
            raise PeerError(f"a frame of type {obj.get('type')!r} routed as {route!r}, or an ack too many")
        return obj

    def send_inner(self, obj: Json) -> bool:
        """Seal and send an inner message; False when something has to wait for a free pair."""
        self.lists_due += obj.get("type") == "list"
        self.queue.append((None, obj))
        return self._flush()

    def send_text(self, peer_id: int, text: str) -> bool:
        """Send a client-com; False when something has to wait for a free pair."""
        if peer_id not in self.talks:
            raise PeerError("no conversation")
        self.queue.append((peer_id, text))
        return self._flush()

    def _flush(self) -> bool:
        waiting: list[tuple[int | None, Any]] = []
        for peer_id, obj in self.queue:
            try:
                if peer_id is not None:
                    data = com_data(self.talks[peer_id].seal(encode(obj)))
                    obj = {"type": "client-com", "src": self.id, "dst": str(peer_id), "data": data}
                    peer_id = None
                self.send_frame(secure_frame(self.channel.seal(encode(obj))))
                self.received = 0
            except FullError:
                waiting.append((peer_id, obj))
        self.queue = waiting
        return not waiting

    def recv_inner(self, timeout: float | None = None) -> Json:
        """The next inner message; top-level acks are counted and skipped."""
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while (obj := self.recv_frame(deadline - time.monotonic()))["type"] == "ack":
            pass
        if obj["type"] != "secure":
            raise PeerError("a connect message after phase 4")
        inner: Json = decode(self.channel.open(secure_parts(obj)))
        self.received += 1
        self._flush()
        if self.auto_list and self.received >= LIST_AFTER:
            self.send_inner({"type": "list"})
        return inner

    def serve_one(self, timeout: float | None = None) -> Event:
        """Process one inner message and tell what happened; what happened during other waits (but "phase") comes first.

        ("list", roster), ("error", dst, code), ("phase", id, number), ("ignored", id, number), ("opened", id, spec,
        "initiator" or "responder"), ("text", id, text), ("ack", id), ("disconnect", id), ("unknown", message).
        """
        return self.events.popleft() if self.events else self._handle(self.recv_inner(timeout))

    def _wait(self, match: Callable[[Event], bool], timeout: float | None) -> Event:
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        while not match(event := self._handle(self.recv_inner(deadline - time.monotonic()))):
            if event[0] != "phase":
                self.events.append(event)
        return event

    def list(self, timeout: float | None = None) -> list[Json]:
        """Ask for the list; the server acks before it answers."""
        number = self.sent if self.send_inner({"type": "list"}) else 0
        while self.lists_due:
            self._wait(lambda event: event[0] == "list", timeout)
        if self.acked < number:
            raise PeerError("the list came before its ack")
        return self.roster

    def open(self, peer_id: int, timeout: float | None = None) -> str:
        """Open a conversation as initiator (responder, if phase 1s cross and the peer's id is lower); its spec."""
        self.openings[peer_id] = (1, "", None)
        self._send_phase(peer_id, 1, {}, ciphers=self.specs)
        ends = [("opened", peer_id), ("error", peer_id)]
        try:
            event = self._wait(lambda event: event[:2] in ends, timeout)
        finally:
            self.openings.pop(peer_id, None)
        if event[0] == "error":
            raise PeerError(f"refused: {event[2]!r}")
        return str(event[2])

    def wait_ack(self, peer_id: int, timeout: float | None = None) -> None:
        """Wait for an inner ack of the peer that was not waited for, or served, before."""
        if ("ack", peer_id) in self.events:
            self.events.remove(("ack", peer_id))
        else:
            self._wait(lambda event: event == ("ack", peer_id), timeout)

    def disconnect(self, peer_id: int) -> None:
        self._forget(peer_id)
        self.send_inner({"type": "client-disconnect", "src": self.id, "dst": str(peer_id), "data": {}})

    def _forget(self, peer_id: int) -> None:
        self.talks.pop(peer_id, None)
        self.openings.pop(peer_id, None)
        self.queue = [entry for entry in self.queue if entry[0] != peer_id]

    def _send_phase(self, peer_id: int, phase: int, data: Json, **more: Any) -> None:
        # The types of the table: the initiator's id is an int, the responder's a str, in either direction.
        src, dst = (self.id, str(peer_id)) if phase in (1, 3) else (str(self.id), peer_id)
        self.send_inner({"type": "client-connect", "src": src, "dst": dst, "phase": phase, **more, "data": data})

    def _handle(self, msg: Json) -> Event:
        """One message of the table "Inner messages"."""
        kind = msg.get("type")
        if kind == "list":
            self.roster, self.lists_due = expect(msg.get("data"), list), max(0, self.lists_due - 1)
            return ("list", self.roster)
        if kind == "error":
            self.errors.append(msg)
            return ("error", as_id(msg["dst"]) if msg.get("dst") is not None else None, msg.get("code"))
        if kind not in ("client-connect", "client-com", "client-disconnect", "ack"):
            return ("unknown", msg)
        peer_id = as_id(msg.get("src"))
        if as_id(msg.get("dst")) != self.id:
            raise PeerError("a message for somebody else")
        if kind == "client-connect":
            return self._client_connect(peer_id, msg)
        if kind == "client-com":
            return self._client_com(peer_id, msg)
        if kind == "ack":
            self.acks.append(peer_id)
            return ("ack", peer_id)
        self._forget(peer_id)
        return ("disconnect", peer_id)

    def _client_com(self, peer_id: int, msg: Json) -> Event:
        """A text, and the inner ack that a non-empty one gets."""
        if peer_id not in self.talks:
            raise PeerError("a text outside a conversation")
        text = decode(self.talks[peer_id].open(com_parts(msg.get("data"))), str)
        if text:
            self.send_inner({"type": "ack", "src": self.id, "dst": peer_id, "data": None})
        self._flush()
        return ("text", peer_id, text)

    def _client_connect(self, peer_id: int, msg: Json) -> Event:
        """Phases 1 and 3 as the responder, 2 and 4 as the initiator; what does not fit the step is ignored."""
        phase = msg.get("phase")
        step, spec, own = self.openings.get(peer_id, (0, "", None))
        if phase == 1:
            # Where phase 1s cross, the lower id stays initiator. An open conversation stays until phase 4 is through.
            choice = next((s for s in expect(msg.get("ciphers"), list) if s in self.specs), None)
            if choice is None or (step == 1 and self.id < peer_id):
                return ("ignored", peer_id, 1)
            self.openings[peer_id] = (2, choice, None)
            self._send_phase(peer_id, 2, {}, ciphers=choice)
            return ("phase", peer_id, 1)
        if (step, phase) not in ((1, 2), (2, 3), (3, 4)):
            return ("ignored", peer_id, phase)
        if phase != 4 and msg.get("ciphers") not in (self.specs if phase == 2 else [spec]):
            raise PeerError("not a spec that can be chosen")
        own = own or Pair.fresh()
        mine = {"public_key": b64(own.pem), "random": b64(own.random)}
        if phase == 2:
            self.openings[peer_id] = (3, msg["ciphers"], own)
            self._send_phase(peer_id, 3, mine, ciphers=msg["ciphers"])
            return ("phase", peer_id, 2)
        data = expect(msg.get("data"))
        remote = read_remote(unb64(data.get("public_key")), unb64(data.get("random")))
        if phase == 3:
            self._send_phase(peer_id, 4, mine)
        self.talks[peer_id] = Channel(spec, "com", own, remote)
        del self.openings[peer_id]
        self._flush()
        return ("opened", peer_id, spec, "responder" if phase == 3 else "initiator")
