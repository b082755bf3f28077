"""The library's and the console's client for sims/2.

A program makes a :class:`Client` and awaits its methods. Everything that happens besides is given to ``on_event``.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.endpoints import HostnameEndpoint
from twisted.internet.interfaces import IHandshakeListener, IProtocol, IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from sims import frames, specs, tls
from sims.client import events
from sims.client.driver import Driver
from sims.client.driver_connection import Connection
from sims.client.driver_shown import OnEvent
from sims.client.events import Contact, Delivery
from sims.client.history import PAGE
from sims.client.messenger import Messenger
from sims.client.store import MemoryStore, Store
from sims.crypto.identity import Address, ServerLink, parse_server_link
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code, LocalError, PeerError, SimsError
from sims.specs import ModernSpec
from sims.transport import LINGER

#: Refusals that stay until somebody does something about them.
_PERMANENT = frozenset(
    {
        Code.INVITE_REQUIRED,
        Code.INVITE_USED,
        Code.NAME_TAKEN,
        Code.NAME_INVALID,
        Code.NOT_AUTHENTICATED,
        Code.NO_COMMON_SPEC,
        Code.POLICY,
        Code.REPLACED,
    }
)

#: Seconds that leaving waits for what was given to the user.
SHOW_TIMEOUT = 1.0


@implementer(IHandshakeListener)
class ModernConnection(Connection):
    """A connection on which bytes are exchanged once TLS, where there is TLS, has been looked at."""

    def opened(self) -> None:
        if not tls.is_tls(self.transport):
            self._client.connection_made(self, b"")

    def handshakeCompleted(self) -> None:  # noqa: N802 - Twisted's name
        """TLS is through: see whether it is good enough."""
        client = self._client
        groups = client.groups if isinstance(client, Client) else (tls.GROUP,)
        try:
            binding = tls.binding(self.transport, groups)
        except PeerError as error:
            self.fail(error)
        else:
            client.connection_made(self, binding)


class Client(Driver):
    """A user of a sims/2 server.

    :param link: the server, as it prints its link; needed the first time that a store is used.
    :param name: the name to be known by; likewise.
    :param store: where identity, sessions and messages are kept; without one, as long as this object lives.
    :param on_event: called with each :class:`~sims.client.events.Event`, in order. A text counts as shown when this
        returns None; where it returns a Deferred, when that fires, but with False. A text that does not count as shown
        by the end, however that comes, is given to the next client of the store again, under the same id.
    :param invite: asked for an invitation when the server does not know us yet and the link brings none.
    :param allowed: cipher specs, in order of preference.
    :param ca: PEM certificates: the server's certificate, too, is verified against these and its host.
    :param groups: key agreements of TLS that are good enough.
    :param read_receipts: whether senders are told that a text was read; it counts as read when it is shown.
    :param history: whether what is said is kept in the store, by this client and those after it; without, as before, at
        first yes.
    :raises LocalError: as :class:`~sims.client.messenger.Messenger`.
    """

    max_frame = frames.MAX_FRAME
    connection_class = ModernConnection
    permanent: ClassVar[frozenset[Code]] = _PERMANENT
    # Two that have one identity would replace each other for ever.
    permanent_later: ClassVar[frozenset[Code]] = frozenset({Code.REPLACED})

    def __init__(
        self,
        reactor: IReactorTime,
        link: ServerLink | str | None = None,
        name: str | None = None,
        *,
        store: Store | None = None,
        on_event: OnEvent = lambda _: None,
        now: Callable[[], float] | None = None,
        invite: Callable[[], str | None] = lambda: None,
        allowed: Sequence[ModernSpec] = specs.MODERN,
        entropy: ModernEntropy | None = None,
        ca: bytes | None = None,
        groups: Sequence[str] = (tls.GROUP,),
        read_receipts: bool = False,
        history: bool | None = None,
        endpoint: Callable[[Address], IStreamClientEndpoint] | None = None,
    ) -> None:
        self._store = store or MemoryStore()
        self.messenger = Messenger(
            self._store,
            clock=reactor.seconds,
            now=now or time.time,
            link=parse_server_link(link) if isinstance(link, str) else link,
            name=name,
            invite=invite,
            allowed=allowed,
            entropy=entropy,
            read_receipts=read_receipts,
            history=history,
        )
        super().__init__(self.messenger, reactor, on_event)
        self.groups = tuple(groups)
        self._ca = ca
        self._reactor = reactor
        self._endpoint = endpoint or self._socket
        self._address = 0  # which of the link's is to be tried

    def _socket(self, address: Address) -> IStreamClientEndpoint:
        endpoint: IStreamClientEndpoint = HostnameEndpoint(self._reactor, address.host.encode("idna"), address.port)
        return tls.client_tls(endpoint, address.host, self._ca) if self.messenger.link.tls else endpoint

    def dial(self) -> Deferred[IProtocol]:
        """As :meth:`Driver.dial`: the addresses of the link, one after the other."""
        addresses = self.messenger.link.addresses
        first = self._address

        def attempt(number: int) -> Deferred[IProtocol]:
            self._address = (first + number) % len(addresses)
            found: Deferred[IProtocol] = self._endpoint(addresses[self._address]).connect(self.factory)

            def failed(failure: Failure) -> Any:
                last = number + 1 == len(addresses) or failure.check(CancelledError)
                return failure if last else attempt(number + 1)

            return found.addErrback(failed)

        return attempt(0)

    def start(self) -> None:
        """As :meth:`Driver.start`; what the client before this one could not show any more is shown at once."""
        super().start()
        self.pump()

    def may_go_on(self, error: SimsError) -> bool:
        """As :meth:`Driver.may_go_on`: with another invitation."""
        return self.messenger.may_retry and error.code in (Code.INVITE_REQUIRED, Code.INVITE_USED)

    def told(self, event: events.Event) -> None:
        """As :meth:`Driver.told`."""
        self.messenger.told(event)

    def _tell(self, event: events.Event) -> None:
        if isinstance(event, events.AccountDeleted):
            self._wanted = False  # whoever connects now is somebody new
        super()._tell(event)

    def act(self, command: Callable[[Messenger], object]) -> None:
        """Run a command of the messenger, and see its consequences through.

        :raises SimsError: what the command raises.
        """
        self.run(lambda: command(self.messenger))

    # --- what programs await ------------------------------------------------------------------------------------------

    def open(self, to: str, timeout: float | None = None) -> Deferred[events.Connected]:
        """Open a conversation with an id, a name or a link; fires when there is one, confirmed by the peer or not yet.

        Fails with a :class:`~sims.errors.SimsError`: ``unknown-recipient``, ``no-common-spec``, ``policy``, or
        ``unavailable`` when ``timeout`` (seconds, counted from now) is over.
        """

        def wanted(event: events.Event) -> events.Connected | None:
            return event if isinstance(event, events.Connected) else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.connect(to, ref))

    def list(self, timeout: float | None = None) -> Deferred[tuple[Contact, ...]]:
        """Who is at the server, if its operator keeps a directory."""

        def wanted(event: events.Event) -> tuple[Contact, ...] | None:
            return event.clients if isinstance(event, events.Listing) else None

        return self._wait(wanted, timeout, self.messenger.list)

    def send(
        self, to: str, text: str, *, until: Delivery = Delivery.ACCEPTED, timeout: float | None = None
    ) -> Deferred[str]:
        """Send a text; fires with its id when it has come as far as ``until``: accepted by the server, or delivered.

        Fails with a :class:`~sims.errors.SimsError` when it cannot be delivered. Cancelling stops the waiting, not the
        message.
        """

        def wanted(event: events.Event) -> str | None:
            return event.id if isinstance(event, events.State) and event.state.reaches(until) else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.send(to, text, ref))

    def safety_number(self, to: str) -> Deferred[str]:
        """The safety number of somebody: 60 digits."""

        def wanted(event: events.Event) -> str | None:
            return event.number if isinstance(event, events.SafetyNumber) else None

        return self._wait(wanted, None, lambda ref: self.messenger.verify(to, ref))

    def history(self, to: str, limit: int = PAGE, before: str | None = None) -> Deferred[tuple[events.Said, ...]]:
        """What was said with somebody, the oldest first: the newest so many, or those before the message of an id."""
        return self._wait(_messages, None, lambda ref: self.messenger.history(to, limit, before, ref))

    def search(self, text: str, limit: int = PAGE) -> Deferred[tuple[events.Said, ...]]:
        """Where all these words were said, or words that begin so, with whomever; the newest so many, oldest first."""
        return self._wait(_messages, None, lambda ref: self.messenger.search(text, limit, ref))

    def why(self, id: str) -> Deferred[events.Why]:
        """What has become of a message, in words."""

        def wanted(event: events.Event) -> events.Why | None:
            return event if isinstance(event, events.Why) else None

        return self._wait(wanted, None, lambda ref: self.messenger.why(id, ref))

    def delete(self, to: str) -> Deferred[events.Deleted]:
        """Delete what was said with somebody, as :meth:`~sims.client.remembering.Remembering.delete`."""

        def wanted(event: events.Event) -> events.Deleted | None:
            return event if isinstance(event, events.Deleted) else None

        return self._wait(wanted, None, lambda ref: self.messenger.delete(to, ref))

    def about(self, timeout: float | None = None) -> Deferred[dict[str, Any]]:
        """What the server says it keeps on us, by name. It may write there what it wants."""

        def wanted(event: events.Event) -> dict[str, Any] | None:
            return event.facts if isinstance(event, events.About) else None

        return self._wait(wanted, timeout, self.messenger.about)

    def delete_account(self, timeout: float | None = None) -> Deferred[events.AccountDeleted]:
        """Have the server forget us; the client then stays away from it. What is kept in the store stays there."""

        def wanted(event: events.Event) -> events.AccountDeleted | None:
            return event if isinstance(event, events.AccountDeleted) else None

        return self._wait(wanted, timeout, self.messenger.delete_account)

    def disconnect(self, to: str, timeout: float | None = None) -> Deferred[events.Disconnected]:
        """Close a conversation, after what was sent to it before."""

        def wanted(event: events.Event) -> events.Disconnected | None:
            return event if isinstance(event, events.Disconnected) else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.disconnect(to, ref))

    def close(self, linger: float = LINGER) -> Deferred[None]:
        """As :meth:`Driver.close`; then the store is let go of."""

        def shown(result: None) -> Deferred[None]:
            return self.showing.all_shown(SHOW_TIMEOUT)

        def closed(result: None) -> None:
            with contextlib.suppress(LocalError):  # what was shown is shown again, and nothing else is lost
                self.messenger.leave()
                self.messenger.settle()
            self._store.close()

        self.messenger.leave()
        return super().close(linger).addCallback(shown).addCallback(closed)


def _messages(event: events.Event) -> tuple[events.Said, ...] | None:
    return event.messages if isinstance(event, events.History) else None
