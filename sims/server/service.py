"""Puts a server together: listeners, the relay behind them, and an orderly end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, DeferredList, gatherResults, maybeDeferred, succeed
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from sims.errors import Code, LocalError
from sims.server.connection import SeedServerFactory
from sims.server.relay import Relay


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
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"{scheme}://{host}:{address.port}"


class SeedServer(Service):
    """A relay that speaks the seed's format on one endpoint or several.

    :param announce: called with the address of each listener, once all listen.
    :param failed: called with the reason when one cannot; nothing listens then.
    """

    log = Logger()

    def __init__(
        self,
        endpoints: Sequence[tuple[str, IStreamServerEndpoint]],
        *,
        clock: IReactorTime,
        announce: Callable[[str], None],
        failed: Callable[[str], None],
    ) -> None:
        self.relay = Relay()
        self.factory = SeedServerFactory(self.relay, clock)
        self._endpoints = endpoints
        self._announce = announce
        self._failed = failed
        self._ports: list[IListeningPort] = []

    def startService(self) -> None:
        super().startService()
        listening: list[Deferred[IListeningPort]] = [
            maybeDeferred(endpoint.listen, self.factory) for _, endpoint in self._endpoints
        ]
        waiting: Deferred[Any] = DeferredList(listening, consumeErrors=True)
        waiting.addCallback(self._listening)

    def _listening(self, results: list[tuple[bool, object]]) -> None:
        problems = []
        for (description, _), (success, result) in zip(self._endpoints, results, strict=True):
            if success and IListeningPort.providedBy(result):
                self._ports.append(result)
            elif isinstance(result, Failure):
                problems.append(f"cannot listen on {description}: {_reason(result)}")
        if problems or not self.running:
            self._stop_listening().addBoth(lambda _: [self._failed(problem) for problem in problems])
            return
        for port in self._ports:
            self._announce(url("sims-seed", port))

    def stopService(self) -> Deferred[None]:
        """Stop listening and let every client read what it was sent."""
        super().stopService()
        for connection in list(self.factory.connections):
            connection.close()
        return self._stop_listening()

    def _stop_listening(self) -> Deferred[None]:
        ports, self._ports = self._ports, []

        def stop(port: IListeningPort) -> Deferred[None]:
            return port.stopListening() or succeed(None)

        return gatherResults([stop(port) for port in ports], consumeErrors=True).addCallback(lambda _: None)


def _reason(failure: Failure) -> str:
    error = failure.value
    if isinstance(error, CannotListenError):
        return str(getattr(error.socketError, "strerror", None) or error.socketError)
    return f"{type(error).__name__}: {error}"
