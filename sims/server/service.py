"""Puts a server together: listeners, the relays behind them, what is in its folder, and an orderly end."""

from __future__ import annotations

import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IReactorFromThreads,
    IReactorSocket,
    IReactorTime,
    IStreamServerEndpoint,
)
from twisted.internet.task import LoopingCall
from twisted.internet.threads import deferToThread
from twisted.logger import Logger
from twisted.python.failure import Failure

from sims import tls
from sims.crypto.certificate import SelfSigned
from sims.crypto.identity import Address, ServerLink
from sims.crypto.primitives import SystemEntropy
from sims.errors import Code, LocalError, SimsError
from sims.server.connection import SeedServerFactory
from sims.server.folder import Folder, read_certificate
from sims.server.interfaces import Store
from sims.server.invitations import Links
from sims.server.limits import Limits
from sims.server.listeners import Listener, machine_name
from sims.server.memory import MemoryStore
from sims.server.modern_connection import ROUNDS, ModernServerFactory
from sims.server.modern_relay import ModernRelay
from sims.server.rates import Addresses
from sims.server.registration import Mode
from sims.server.relay import Relay
from sims.server.sqlite import SqliteStore
from sims.server.turns import Turns, described

BACKLOG = 512


def endpoint(reactor: object, description: str) -> IStreamServerEndpoint:
    """The server endpoint of a description in Twisted's notation (``tcp:8080:interface=127.0.0.1``).

    :raises LocalError: ``malformed``, with the description.
    """
    try:
        found: IStreamServerEndpoint = serverFromString(reactor, description)
        return found
    except (ValueError, TypeError, KeyError, IndexError, OSError) as error:
        raise LocalError(Code.MALFORMED, f"cannot listen on {description!r}: {error}") from None


def url(scheme: str, port: IListeningPort) -> str:
    """The address of a listener, as it is printed: IPv6 in brackets."""
    address = port.getHost()
    if not isinstance(address, IPv4Address | IPv6Address):
        return f"{scheme}:{address}"
    return f"{scheme}://{Address(address.host, address.port)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What a server is told.

    :ivar host: of its links, instead of what it finds out.
    :ivar certificate: the files of a certificate and its key, instead of the ones that it makes.
    :ivar log_connections: the log says who connects from where to sims/2, and leaves when.
    :ivar memory: nothing is kept over the end of the server but what it is.
    """

    folder: Path
    listeners: Sequence[Listener] = ()
    seed: Sequence[tuple[str, IStreamServerEndpoint]] = ()
    host: str | None = None
    mode: Mode = Mode.INVITE
    limits: Limits = Limits()  # noqa: RUF009 - frozen
    certificate: tuple[Path, Path] | None = None
    groups: tuple[str, ...] = (tls.GROUP,)
    directory: bool = False
    log_connections: bool = False
    memory: bool = False


class RelayServer(Service):
    """A server: sims/2 on the listeners, the seed's format on the endpoints named for it.

    :param announce: called with the address of each listener of the seed's, once all listen; ``announce_link`` with
        the link to each other one, then and whenever there is a new invitation.
    :param failed: called with the reason when it cannot run; nothing listens then.
    """

    log = Logger()

    def __init__(
        self,
        settings: Settings,
        *,
        reactor: object,
        announce: Callable[[str], None],
        announce_link: Callable[[ServerLink], None],
        failed: Callable[[str], None],
    ) -> None:
        self._settings = settings
        self._reactor = reactor
        self._clock = cast("IReactorTime", reactor)
        self._announce = announce
        self._announce_link = announce_link
        self._failed = failed
        self._store: Store = MemoryStore()
        self._store_closes = self._store_ended = False
        self._store_awaited: list[Deferred[None]] = []
        self._folder = Folder(settings.folder)
        self._addresses = Addresses(settings.limits.connections, time.monotonic)
        self._seed = SeedServerFactory(Relay(), self._clock, addresses=self._addresses)
        self._modern: list[ModernServerFactory] = []
        self._relay: ModernRelay | None = None
        self._tls: tls.ServerTls | None = None
        self._links: Links | None = None
        self._ports: list[IListeningPort] = []
        self._rounds: LoopingCall | None = None

    # --- the beginning ---

    def startService(self) -> None:
        super().startService()
        settings = self._settings
        try:
            if settings.listeners:
                self._folder.lock()
                self._prepare()
                for listener in settings.listeners:
                    self._ports.append(self._listen(listener))
        except SimsError as error:
            self._give_up([error.text])
            return
        waiting: Deferred[Any] = DeferredList(
            [maybeDeferred(endpoint.listen, self._seed) for _, endpoint in settings.seed], consumeErrors=True
        )
        waiting.addCallback(self._listening)

    def _prepare(self) -> None:
        settings, entropy = self._settings, SystemEntropy()
        identity = self._folder.identity(entropy)
        if any(listener.tls for listener in settings.listeners):
            self._tls = tls.ServerTls(*self._read_certificate())
            signal.signal(signal.SIGHUP, self._hung_up)
        if not settings.memory:
            self._store = self._open()
        last = self._folder.invitation()
        self._links = Links(self._store, identity.id, settings.mode, entropy, self._told, last)
        self._relay = relay = ModernRelay(
            self._store,
            clock=time.monotonic,
            wall=time.time,
            limits=settings.limits,
            mode=settings.mode,
            directory=settings.directory,
            invitation_spent=self._links.spent,
        )
        turns = Turns(relay, self._clock, time.monotonic)
        for secured in (True, False):
            factory = ModernServerFactory(
                turns,
                identity,
                self._addresses,
                clock=self._clock,
                wall=time.time,
                secured=secured,
                groups=settings.groups,
                entropy=entropy,
                log_connections=settings.log_connections,
            )
            self._modern.append(factory)
        self._rounds = LoopingCall(self._check_keys)
        self._rounds.clock = self._clock
        self._rounds.start(ROUNDS, now=False)

    def _open(self) -> SqliteStore:
        store = SqliteStore.open(
            self._folder.database,
            deliver=cast("IReactorFromThreads", self._reactor).callFromThread,
            failed=self._store_failed,
            broken=self._store_broken,
            foreign_change=self._store_changed,
            life=self._settings.limits.mailbox.quota.life,
        )
        store.start()
        return store

    def _listen(self, listener: Listener) -> IListeningPort:
        everywhere = not listener.interface and socket.has_dualstack_ipv6()
        family = socket.AF_INET6 if everywhere or ":" in listener.interface else socket.AF_INET
        try:
            found = socket.create_server(
                (listener.interface, listener.port), family=family, backlog=BACKLOG, dualstack_ipv6=everywhere
            )
        except OSError as error:
            raise LocalError(Code.UNAVAILABLE, f"cannot listen on {listener.text}: {error.strerror}") from None
        secured, plain = self._modern
        factory: IProtocolFactory = cast("IProtocolFactory", plain)
        if listener.tls and self._tls is not None:
            factory = tls.server_tls(cast("IProtocolFactory", secured), self._tls, self._clock)
        with found:
            found.setblocking(False)
            reactor = cast("IReactorSocket", self._reactor)
            return reactor.adoptStreamPort(found.fileno(), cast("Any", family), cast("Any", factory))

    def _listening(self, results: list[tuple[bool, object]]) -> None:
        problems = []
        seed = []
        for (description, _), (success, result) in zip(self._settings.seed, results, strict=True):
            if success and IListeningPort.providedBy(result):
                seed.append(result)
            elif isinstance(result, Failure):
                problems.append(f"cannot listen on {description}: {_reason(result)}")
        modern = list(self._ports)
        self._ports += seed
        if problems or not self.running:
            self._give_up(problems)
            return

        def named(host: str) -> None:
            if self.running and self._links is not None:
                self._links.begin([*self._places(modern, host)])

        listeners = self._settings.listeners
        if self._settings.host is not None or all(listener.named for listener in listeners):
            named(self._settings.host or "")
        else:
            # It may have to ask a name server.
            deferToThread(machine_name).addCallback(named).addErrback(self._broken)
        for port in seed:
            self._announce(url("sims-seed", port))

    def _places(self, ports: Sequence[IListeningPort], host: str) -> list[tuple[Address, bool]]:
        pairs = zip(self._settings.listeners, ports, strict=True)
        chosen = self._settings.host
        return [
            (Address(chosen or listener.named or host, cast("IPv4Address", port.getHost()).port), listener.tls)
            for listener, port in pairs
        ]

    def _told(self, links: Sequence[ServerLink]) -> None:
        try:
            self._folder.write_link(str(links[0]))
        except LocalError as error:
            self.log.error("{text}", text=error.text)
        for link in links:
            self._announce_link(link)

    def _broken(self, failure: Failure) -> None:
        self.log.failure("the links could not be made", failure=failure)
        self._give_up(["the links could not be made"])

    def _give_up(self, problems: Sequence[str]) -> None:
        self._stop().addBoth(lambda _: [self._failed(problem) for problem in problems])

    # --- while it runs ---

    def _read_certificate(self) -> SelfSigned:
        given = self._settings.certificate
        return self._folder.certificate(time.time()) if given is None else read_certificate(*given)

    def _hung_up(self, *_: object) -> None:
        cast("IReactorFromThreads", self._reactor).callFromThread(self._reread)

    def _reread(self) -> None:
        """SIGHUP: read the certificate again. Open connections go on as they are."""
        if self._tls is None or not self.running:
            return
        try:
            self._tls.use(*self._read_certificate())
        except LocalError as error:
            self.log.error("the certificate stays as it was: {text}", text=error.text)
        else:
            self.log.info("the certificate was read again")

    def _check_keys(self) -> None:
        for factory in self._modern:
            factory.check_keys()

    # --- the end ---

    def stopService(self) -> Deferred[None]:
        """Stop listening and let every client read what it was sent."""
        super().stopService()
        for factory in self._modern:
            for modern in list(factory.connections):
                modern.close()
        for connection in list(self._seed.connections):
            connection.close()
        return self._stop()

    def _stop(self) -> Deferred[None]:
        if self._rounds is not None and self._rounds.running:
            self._rounds.stop()
        ports, self._ports = self._ports, []

        def stop(port: IListeningPort) -> Deferred[None]:
            return port.stopListening() or succeed(None)

        def unlock(_: object) -> None:
            self._folder.unlock()

        stopped: Deferred[Any] = gatherResults([stop(port) for port in ports], consumeErrors=True)
        return stopped.addCallback(lambda _: self._close_store()).addCallback(unlock)

    def _close_store(self) -> Deferred[None]:
        """Have the store end; comes when it has, or can do nothing any more."""
        ended: Deferred[None] = Deferred()
        self._store_awaited.append(ended)
        if self._store_ended:
            self._store_over()
        elif not self._store_closes:
            self._store_closes = True
            self._store.close(lambda _: self._store_over())
        return ended

    def _store_over(self) -> None:
        self._store_ended = True
        awaited, self._store_awaited = self._store_awaited, []
        for ended in awaited:
            ended.callback(None)

    def _store_failed(self, reason: str) -> None:
        self._store_over()
        self._give_up([reason])

    def _store_changed(self) -> None:
        """``sims-admin`` has changed something: removed somebody who is connected, withdrawn what the links carry."""
        if self._relay is not None:
            self._relay.accounts_changed()
        if self._links is not None and self._settings.mode is Mode.INVITE:
            self._links.spent()

    def _store_broken(self, error: Exception) -> None:
        # Where, and what kind: the text of an error may hold what somebody has sent.
        self.log.error("the store could not do something: {what}", what=described(error))


def _reason(failure: Failure) -> str:
    error = failure.value
    if isinstance(error, CannotListenError):
        return str(getattr(error.socketError, "strerror", None) or error.socketError)
    return f"{type(error).__name__}: {error}"
