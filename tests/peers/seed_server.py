"""An independent server of the seed protocol, for tests of clients: threads, blocking sockets, made from the wire page.

It does what the wire page says of the original server: it acks every object before it processes it, gives the list,
relays by int(dst), believes `src`, gives an id to whoever claims it last, never cuts the list, takes a client's keys
from the client's first secure frame only, and is silent where it has nothing to say. With `original_keys` it also keeps
only its last own pair and lets its state move on a wrong MAC, so that messages that cross break the session for good.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Sequence
from typing import Any

from tests.peers.seed_peer import (
    DEFAULT_SPECS,
    BadBoxError,
    Channel,
    FrameReader,
    Json,
    Pair,
    PeerError,
    as_id,
    b64,
    decode,
    encode,
    expect,
    read_remote,
    secure_frame,
    secure_parts,
    unb64,
)


class Connection:
    """A client's connection. The lock keeps sealing and sending in one order."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock, self.reader, self.lock = sock, FrameReader(sock), threading.Lock()
        self.name, self.id = "", 0
        self.channel: Channel | None = None

    def send(self, obj: Json) -> None:
        """Send a top-level object ("Framing")."""
        with self.lock:
            self.sock.sendall(encode(obj) + b"\n\n")

    def send_inner(self, obj: Json) -> bool:
        """Seal and send; False before the client's first secure frame."""
        with self.lock:
            if self.channel is None or self.channel.remote is None:
                return False
            self.sock.sendall(encode(secure_frame(self.channel.seal(encode(obj)))) + b"\n\n")
            return True

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)


class SeedServer:
    """Listens on 127.0.0.1, on a free port (`port`). `specs` are the ones it speaks; it takes the client's first.

    For the test to look at: `clients` (id to Connection), `inners` (id of the connection, inner message; in order of
    arrival) and `bad_boxes`.
    """

    def __init__(self, specs: Sequence[str] = DEFAULT_SPECS, original_keys: bool = False) -> None:
        self.specs, self.original_keys = list(specs), original_keys
        self.clients: dict[int, Connection] = {}
        self.inners: list[tuple[int, Json]] = []
        self.bad_boxes = 0
        self._lock = threading.Lock()
        self._connections: set[Connection] = set()
        self._threads: list[threading.Thread] = []
        self._stopped = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    def start(self) -> SeedServer:
        self._spawn(self._accept)
        return self

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        self._stopped = True
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            connections, threads = list(self._connections), list(self._threads)
        for connection in connections:
            connection.close()
        for thread in threads:
            thread.join(10)

    def __enter__(self) -> SeedServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def push(self, client_id: int, obj: Json) -> bool:
        """Send any inner message to a client; False when it cannot be reached."""
        with self._lock:
            connection = self.clients.get(client_id)
        try:
            return connection is not None and connection.send_inner(obj)
        except OSError:
            return False

    def _spawn(self, target: Any, *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        with self._lock:
            self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            connection = Connection(sock)
            with self._lock:
                self._connections.add(connection)
            if self._stopped:
                connection.close()
            self._spawn(self._serve, connection)

    def _serve(self, connection: Connection) -> None:
        try:
            while True:
                self._frame(connection, connection.reader.read(None))
        except (EOFError, OSError, PeerError):
            pass  # closed, or a frame without an end
        finally:
            with self._lock:
                self._connections.discard(connection)
                if self.clients.get(connection.id) is connection:
                    del self.clients[connection.id]
            connection.sock.close()

    def _frame(self, connection: Connection, raw: bytes) -> None:
        """One frame: the ack comes first, and what is not understood gets no other answer ("Top-level messages")."""
        try:
            obj: Json = decode(raw)
        except PeerError:
            return
        if obj.get("type") == "ack":
            return
        connection.send({"type": "ack"})
        with contextlib.suppress(PeerError):
            if obj.get("type") == "connect":
                self._connect(connection, obj)
            elif obj.get("type") == "secure" and connection.channel is not None:
                self._secure(connection, connection.channel, obj)

    def _connect(self, connection: Connection, obj: Json) -> None:
        offered, data = obj.get("ciphers"), expect(obj.get("data"))
        if obj.get("phase") == 1:
            spec = next((s for s in expect(offered, list) if s in self.specs), None)
            if spec is not None:
                connection.send({"type": "connect", "phase": 2, "ciphers": spec, "data": {}})
        elif obj.get("phase") == 3 and offered in self.specs:
            # Phase 3's key and random are looked at, but only the first secure frame's are taken.
            read_remote(unb64(data.get("public_key")), unb64(data.get("client_random")))
            own = Pair.fresh()
            with connection.lock:
                connection.channel = Channel(offered, "server", own, None, limit=None, last_only=self.original_keys)
            connection.name, connection.id = expect(obj.get("name"), str), as_id(obj.get("id"))
            with self._lock:
                self.clients[connection.id] = connection
            data = {"public_key": b64(own.pem), "server_random": b64(own.random)}
            connection.send({"type": "connect", "phase": 4, "ciphers": offered, "data": data})

    def _secure(self, connection: Connection, channel: Channel, obj: Json) -> None:
        parts = secure_parts(obj)
        try:
            with connection.lock:
                inner: Json = decode(channel.open(parts))
        except BadBoxError:
            self.bad_boxes += 1
            if self.original_keys:
                with connection.lock:
                    channel.remote = read_remote(parts["public_key"], parts["random"])
            return
        with self._lock:
            self.inners.append((connection.id, inner))
            roster = [{"name": c.name, "id": i, "level": 0} for i, c in self.clients.items()]
        if inner.get("type") == "list":
            connection.send_inner({"type": "list", "data": roster})
        elif "src" in inner and "dst" in inner:
            self.push(as_id(inner["dst"]), inner)
