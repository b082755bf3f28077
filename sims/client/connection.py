"""The library's and the console's client for servers that speak the seed's format.

A program makes a :class:`SeedClient` and awaits its methods. Everything that happens besides is given to ``on_event``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IReactorTime, IStreamClientEndpoint

from sims import specs, wire
from sims.client import events
from sims.client.driver import Driver
from sims.client.driver_shown import OnEvent
from sims.client.events import Contact, Delivery
from sims.client.seed import SeedMessenger
from sims.crypto.primitives import Entropy
from sims.specs import CipherSpec


class SeedClient(Driver):
    """A user of a server that speaks the seed's format. Nothing authenticates that server, or anybody on it.

    :param endpoint: where the server is.
    :param name: what others see.
    :param own_id: the number others reach this client by; one connection of an id at a time.
    :param on_event: called with each :class:`~sims.client.events.Event`, in order.
    :param offer: specs to offer, in order of preference; ``allowed``: those to agree to when others offer.
    """

    max_frame = wire.MAX_FRAME
    closed_early = "the server closed the connection during the handshake; is the id in use?"

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        name: str,
        own_id: int,
        *,
        clock: IReactorTime,
        on_event: OnEvent = lambda _: None,
        offer: Sequence[CipherSpec] = specs.SEED_OFFER,
        allowed: Sequence[CipherSpec] = specs.SEED,
        entropy: Entropy | None = None,
    ) -> None:
        self.messenger = SeedMessenger(name, own_id, clock=clock.seconds, entropy=entropy, offer=offer, allowed=allowed)
        super().__init__(self.messenger, clock, on_event)
        self._endpoint = endpoint

    def dial(self) -> Deferred[IProtocol]:
        """As :meth:`Driver.dial`."""
        found: Deferred[IProtocol] = self._endpoint.connect(self.factory)
        return found

    def act(self, command: Callable[[SeedMessenger], object]) -> None:
        """Run a command of the messenger, and see its consequences through.

        :raises SimsError: what the command raises.
        """
        self.run(lambda: command(self.messenger))

    def open(self, to: str, timeout: float | None = None) -> Deferred[events.Connected]:
        """Open a conversation with an id or a name; fires when the four phases are through.

        Fails with a :class:`~sims.errors.SimsError`: ``unknown-recipient``, ``no-common-spec``, or ``unavailable`` when
        the peer does not answer or ``timeout`` (seconds, counted from now) is over.
        """

        def wanted(event: events.Event) -> events.Connected | None:
            return event if isinstance(event, events.Connected) else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.connect(to, ref))

    def list(self, timeout: float | None = None) -> Deferred[tuple[Contact, ...]]:
        """Who is connected to the server."""

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
            return event.id if isinstance(event, events.State) and event.state == until else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.send(to, text, ref))

    def disconnect(self, to: str, timeout: float | None = None) -> Deferred[events.Disconnected]:
        """Close a conversation, after what was sent to it before."""

        def wanted(event: events.Event) -> events.Disconnected | None:
            return event if isinstance(event, events.Disconnected) else None

        return self._wait(wanted, timeout, lambda ref: self.messenger.disconnect(to, ref))
