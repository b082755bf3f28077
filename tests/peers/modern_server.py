"""A minimal honest server of sims/2: threads, blocking sockets, made from the protocol page alone.

Everything is in memory: accounts, invitations, prekeys, and a mailbox for each id, from which a message goes when its
receiver has acknowledged it. `stop` closes the connections; what was kept stays, and `start` listens again.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence

from OpenSSL import SSL

from tests.peers.modern_connect import ServerConnect, to_frame
from tests.peers.modern_identity import Identity, Link, check_bundle, check_one_time
from tests.peers.modern_primitives import DEFAULT_SPECS, Map, RefusedError, as_map, raw_field, text_field
from tests.peers.modern_stream import Stream, TlsStream, Wire, server_context

DAY = 86_400


class Account:
    """What is kept of an id."""

    def __init__(self, account_id: str, name: str) -> None:
        self.id, self.name = account_id, name
        self.bundle: Map | None = None
        self.one_time: list[Map] = []
        self.mailbox: list[Map] = []
        self.given: dict[str, float] = {}  # when each fetcher had a one-time key
        self.epoch = 0
        self.wire: Wire | None = None


class ModernServer:
    """Listens on 127.0.0.1. `links` are for those who have no account yet, each with an invitation.

    For the test to look at: `accounts` by id, `inners` (id of the connection, inner message; in order of arrival) and
    `failures`, the codes with which connections have ended.
    """

    def __init__(self, tls: bool = False, specs: Sequence[str] = DEFAULT_SPECS, directory: bool = True) -> None:
        self.identity, self.tls, self.specs, self.directory = Identity.fresh(), tls, [*specs], directory
        self.accounts: dict[str, Account] = {}
        self.invites: set[str] = set()
        self.inners: list[tuple[str, Map]] = []
        self.failures: list[str] = []
        self.stored: set[tuple[str, bytes]] = set()
        self.lock = threading.RLock()
        self.port = 0
        self._context: SSL.Context | None = server_context() if tls else None
        self._listener: socket.socket
        self._wires: set[Wire] = set()
        self._threads: list[threading.Thread] = []

    # --- for the test ---

    def start(self) -> ModernServer:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        self._spawn(self._accept, self._listener)
        return self

    def stop(self) -> None:
        """Close everything and wait for the threads."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()
        for thread in self._threads:
            thread.join(10)
        self._threads.clear()

    def drop(self, account_id: str | None = None) -> None:
        """Close somebody's connection, or everybody's."""
        with self.lock:
            account = self.accounts.get(account_id or "")
            wires = [*self._wires] if account_id is None else [account.wire] if account and account.wire else []
        for wire in wires:
            wire.close()

    def __enter__(self) -> ModernServer:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def link(self, port: int | None = None) -> str:
        """A link with a new invitation; `port` is that of somebody between."""
        invite = secrets.token_urlsafe(12)
        self.invites.add(invite)
        return str(Link(self.tls, (("127.0.0.1", port or self.port),), self.identity.id, invite))

    def id_of(self, name: str) -> str:
        with self.lock:
            return next(account.id for account in self.accounts.values() if account.name == name)

    # --- connections ---

    def _spawn(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            self._spawn(self._serve, sock)

    def _serve(self, sock: socket.socket) -> None:
        account: Account | None = None
        try:
            wire = Wire(Stream(sock) if self._context is None else TlsStream(sock, self._context, False))
        except (EOFError, OSError):
            sock.close()
            return
        try:
            with self.lock:
                self._wires.add(wire)
            account = self._connect(wire)
            while True:
                self._take(account, wire, wire.read())
        except (EOFError, OSError):
            pass
        except RefusedError as error:
            self.failures.append(error.code)
        finally:
            with self.lock:
                if account is not None and account.wire is wire:
                    account.wire = None
                self._wires.discard(wire)
            wire.close()

    def _connect(self, wire: Wire) -> Account:
        connect = ServerConnect(self.identity, self.specs, binding=wire.stream.binding)
        try:
            wire.send_frame(connect.take1(wire.read_frame(10)))
            said = connect.take3(wire.read_frame(10))
        except RefusedError as error:
            wire.send_frame(to_frame({"type": "error", "data": {"code": error.code}}))
            raise
        with self.lock:
            try:
                account = self._account(said)
            except RefusedError as error:
                wire.send_frame(connect.finish({"error": error.code}))
                raise
            answer: Map = {"name": account.name, "limits": {"frame": 98_304}, "time": int(time.time())}
            if "epoch" in said:
                answer["epoch"] = account.epoch
                account.epoch = max(account.epoch, said["epoch"])
            wire.send_frame(connect.finish(answer))
            wire.hop = connect.hop
            if account.wire is not None:
                with contextlib.suppress(OSError):
                    account.wire.send({"type": "error", "data": {"code": "replaced"}})
                account.wire.close()
            account.wire = wire
            for inner in list(account.mailbox):
                wire.send(inner)
        return account

    def _account(self, said: Map) -> Account:
        account = self.accounts.get(said["id"])
        if account is not None:
            return account
        if any(other.name == said["name"] for other in self.accounts.values()):
            raise RefusedError("name-taken")
        if "invite" not in said:
            raise RefusedError("invite-required")
        if said["invite"] not in self.invites:
            raise RefusedError("invite-used")
        self.invites.remove(said["invite"])
        account = self.accounts[said["id"]] = Account(said["id"], said["name"])
        return account

    # --- messages ---

    def _take(self, account: Account, wire: Wire, inner: Map) -> None:
        kind, data = inner.get("type"), as_map(inner.get("data"))
        with self.lock:
            self.inners.append((account.id, inner))
            if kind in ("client-connect", "client-com"):
                self._relay(account, wire, inner)
            elif kind == "ack":
                account.mailbox = [kept for kept in account.mailbox if kept["mid"] not in data["mids"]]
            elif kind == "publish":
                self._publish(account, data)
                wire.send({"type": "ack", "data": {"mids": [raw_field(inner, "mid", 16)]}})
            elif kind == "fetch":
                self._fetch(account, wire, inner)
            elif kind == "list":
                wire.send({"type": "list", "data": {"clients": self._clients() if self.directory else []}})
            elif kind == "about":
                facts = {"id": account.id, "name": account.name, "waiting": len(account.mailbox)}
                wire.send({"type": "about", "data": {"facts": facts}})
            else:
                wire.send({"type": "error", "data": {"code": "malformed"}})

    def _clients(self) -> list[Map]:
        return [{"id": a.id, "name": a.name, "online": a.wire is not None} for a in self.accounts.values()]

    def _publish(self, account: Account, data: Map) -> None:
        bundle = as_map(data.get("bundle"))
        owner = check_bundle(bundle, time.time(), account.id)
        for key in data.get("one_time_keys", []):
            check_one_time(owner, key)
        account.bundle = bundle
        account.one_time = [*account.one_time, *data.get("one_time_keys", [])][-100:]

    def _fetch(self, asker: Account, wire: Wire, inner: Map) -> None:
        mid, data = raw_field(inner, "mid", 16), inner["data"]
        wanted = ("id", data["id"]) if "id" in data else ("name", text_field(data, "name"))
        found = next((a for a in self.accounts.values() if getattr(a, wanted[0]) == wanted[1]), None)
        if found is None or found.bundle is None:
            wire.send({"type": "error", "mid": mid, "data": {"code": "unknown-recipient", "mid": mid}})
            return
        reply: Map = {"bundle": found.bundle}
        if found.one_time and time.time() - found.given.get(asker.id, -1e9) > DAY:
            reply["one_time_key"] = found.one_time.pop(0)
            found.given[asker.id] = time.time()
        wire.send({"type": "bundle", "mid": mid, "data": self.answer_fetch(asker, found, reply)})

    def _relay(self, sender: Account, wire: Wire, inner: Map) -> None:
        mid = raw_field(inner, "mid", 16)
        code = None
        if inner.get("src") != sender.id:
            code = "not-sender"
        elif inner.get("dst") not in self.accounts:
            code = "unknown-recipient"
        if code is not None:
            wire.send({"type": "error", "data": {"code": code, "mid": mid}})
            return
        if (sender.id, mid) not in self.stored:
            self.stored.add((sender.id, mid))
            for made in self.pass_on(inner):
                self.deliver(made)
        wire.send({"type": "ack", "data": {"mids": [mid]}})

    def deliver(self, inner: Map) -> None:
        """Keep a message for its receiver, and send it if the receiver is here."""
        with self.lock:
            account = self.accounts[inner["dst"]]
            account.mailbox.append(inner)
            if account.wire is not None:
                with contextlib.suppress(OSError):
                    account.wire.send(inner)

    # --- where a hostile server does something else ---

    def pass_on(self, inner: Map) -> list[Map]:
        """The messages that are delivered for one that came."""
        return [inner]

    def answer_fetch(self, asker: Account, owner: Account, reply: Map) -> Map:
        """What is answered to a fetch."""
        return reply
