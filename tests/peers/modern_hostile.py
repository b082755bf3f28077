"""A hostile server of sims/2, and somebody between a client and any server, made from the protocol page alone."""

from __future__ import annotations

import contextlib
import copy
import json
import socket
import threading
from collections.abc import Callable
from typing import Any

from tests.peers.modern_connect import base64_field, to_frame
from tests.peers.modern_primitives import Map
from tests.peers.modern_server import Account, ModernServer
from tests.peers.modern_stream import Stream, TlsStream, client_context, server_context

Meddle = Callable[[Map], list[Map]]
MeddleBundle = Callable[[Account, Account, Map], Map]


def changed(value: Map, path: str, change: Callable[[Any], Any]) -> Map:
    """A copy with one field, named with slashes, changed; where `change` gives None the field is gone."""
    top = at = copy.deepcopy(value)
    *folders, last = path.split("/")
    for folder in folders:
        at = at[folder]
    made = change(at[last])
    if made is None:
        del at[last]
    else:
        at[last] = made
    return top


def flipped(data: bytes, at: int = 0, mask: int = 1) -> bytes:
    """Bytes with one of them changed."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def fields_of(inner: Map, prefix: str = "") -> list[str]:
    """The path of every byte field of a message, but for its mid."""
    found: list[str] = []
    for key, value in inner.items():
        if isinstance(value, dict):
            found += fields_of(value, f"{prefix}{key}/")
        elif isinstance(value, bytes) and key != "mid":
            found.append(prefix + key)
    return found


class HostileServer(ModernServer):
    """Does what it is told to with what it relays, until it is told to be honest.

    `meddle` gives the messages that are delivered for one that came; `meddle_bundle` what is answered to a fetch.
    Every original is kept in `originals`, for a test to deliver later; `held` is for what `meddle` keeps.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.meddle: Meddle | None = None
        self.meddle_bundle: MeddleBundle | None = None
        self.originals: list[Map] = []
        self.held: list[Map] = []
        self.meddled = 0

    def honest(self, release: bool = True) -> None:
        """From now on relay as is right; with `release`, deliver what was held, in the order in which it came."""
        with self.lock:
            self.meddle = self.meddle_bundle = None
            held, self.held = self.held, []
            for inner in held if release else []:
                self.deliver(inner)

    def pass_on(self, inner: Map) -> list[Map]:
        self.originals.append(inner)
        if self.meddle is None:
            return [inner]
        made = self.meddle(copy.deepcopy(inner))
        self.meddled += made != [inner]
        return made

    def answer_fetch(self, asker: Account, owner: Account, reply: Map) -> Map:
        if self.meddle_bundle is None:
            return reply
        self.meddled += 1
        return self.meddle_bundle(asker, owner, copy.deepcopy(reply))

    # --- ways to meddle ---

    def once(self, wanted: Callable[[Map], bool], act: Meddle) -> None:
        """Do `act` to the first message that is wanted; the others pass."""
        done = threading.Event()

        def meddle(inner: Map) -> list[Map]:
            if done.is_set() or not wanted(inner):
                return [inner]
            done.set()
            return act(inner)

        self.meddle = meddle

    def withhold(self, wanted: Callable[[Map], bool]) -> None:
        """Hold every message that is wanted."""

        def meddle(inner: Map) -> list[Map]:
            if not wanted(inner):
                return [inner]
            self.held.append(inner)
            return []

        self.meddle = meddle

    def release_backwards(self) -> None:
        """Deliver what was held, the last first, and be honest."""
        with self.lock:
            self.held.reverse()
            self.honest()


class Between:
    """Sits between a client and the server at `port`, over TCP or ending TLS on both sides, and may change frames.

    `change(direction, number, frame)` gives the frames that are passed on; direction is "to server" or "to client",
    `number` counts from 0 in that direction.
    """

    def __init__(self, port: int, change: Callable[[str, int, bytes], list[bytes]], tls: bool = False) -> None:
        self.server_port, self.change = port, change
        self._context = server_context() if tls else None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._streams: list[Stream] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for stream in self._streams:
            stream.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        client, server = Stream(sock), Stream(socket.create_connection(("127.0.0.1", self.server_port)))
        with contextlib.suppress(OSError, EOFError):
            if self._context is not None:
                client = TlsStream(sock, self._context, False)
                server = TlsStream(server.sock, client_context(), True)
            self._streams += [client, server]
            threading.Thread(target=self._pass, args=(client, server, "to server"), daemon=True).start()
            self._pass(server, client, "to client")
        for stream in (client, server):
            stream.close()

    def _pass(self, source: Stream, sink: Stream, direction: str) -> None:
        buffer, number = b"", 0
        with contextlib.suppress(OSError):
            while data := source.receive():
                *frames, buffer = (buffer + data).split(b"\n\n")
                for frame in frames:
                    for made in self.change(direction, number, frame):
                        sink.send(made + b"\n\n")
                    number += 1
        for stream in (source, sink):
            stream.close()


def change_frame(raw: bytes, path: str, change: Callable[[Any], Any]) -> bytes:
    """A frame with one field changed; `change` has byte fields as bytes if they are keys, boxes or randoms."""
    frame = json.loads(raw)
    *folders, last = path.split("/")
    at = frame
    for folder in folders:
        at = at[folder]
    if isinstance(at[last], str) and last != "ciphers":
        value = change(base64_field(at, last))
        at[last] = json.loads(to_frame({"": value}))[""]
    else:
        at[last] = change(at[last])
    return to_frame(frame)
