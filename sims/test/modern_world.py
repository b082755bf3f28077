"""A server of sims/2 and whole clients of it in memory: connections that are cut, clients that crash and come back."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from math import inf
from typing import Any, TypeVar, cast

from twisted.internet import error
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from sims import inner
from sims.client import events, publishing
from sims.client.events import Delivery
from sims.client.messenger import Messenger
from sims.client.modern_connection import Client, ModernConnection
from sims.client.store import Change, MemoryStore
from sims.crypto.identity import Address, ServerLink
from sims.errors import Code, LocalError
from sims.server.limits import Connections, Limits, Rate
from sims.test.modern_builders import Counting
from sims.test.modern_network import ModernNetwork
from sims.test.network import Stream

E = TypeVar("E", bound=events.Event)

#: Limits of which a test that is not about them sees nothing.
LIFTED = Limits(connections=Connections(inf, inf, inf), fetches=Rate(inf, inf), sends=Rate(inf, inf))


def use_few_keys(case: SynchronousTestCase, few: int = 1) -> None:
    """Let clients publish so few one-time keys only: making and checking them is most of what a test would do."""
    case.patch(publishing, "MAX_PUBLISHED", few)
    case.patch(publishing, "FEW", few)


class FragileStore(MemoryStore):
    """A store that goes down, or is full.

    :ivar commits: how many there were.
    :ivar fails_at: the number of the commit with which it goes down; ``applied`` says whether that one is in it.
    :ivar full: nothing is taken.
    """

    def __init__(self) -> None:
        super().__init__()
        self.commits = 0
        self.fails_at: int | None = None
        self.applied = True
        self.down = False
        self.full = False
        self.crashed: Callable[[], None] = lambda: None

    def commit(self, change: Change) -> None:
        if self.down or self.full:
            raise LocalError(Code.UNAVAILABLE, "the disk is full")
        self.commits += 1
        if self.commits != self.fails_at:
            super().commit(change)
            return
        self.down = True
        if self.applied:
            super().commit(change)
        self.crashed()
        raise LocalError(Code.UNAVAILABLE, "it has crashed")

    def copy(self) -> FragileStore:
        """What is in it, in another one."""
        found = FragileStore()
        found._saved = self.load()
        found._seen = dict(self._seen)
        found._history = deepcopy(self._history)
        return found


class Watched(ModernConnection):
    """A connection that breaks at a frame, of either direction."""

    def frame_received(self, frame: bytes) -> None:
        if not cast("_Client", self._client).user.breaks():
            super().frame_received(frame)

    def send_frame(self, frame: bytes) -> None:
        if not cast("_Client", self._client).user.breaks():
            super().send_frame(frame)


class _Client(Client):
    connection_class = Watched
    user: User


@implementer(IStreamClientEndpoint)
class Way:
    """The way of a user to the server.

    :ivar refusing: connecting fails; ``attempts`` are the times at which it was tried.
    """

    def __init__(self, world: World) -> None:
        self.refusing = False
        self.attempts: list[float] = []
        self._world = world

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:  # noqa: N803
        """As IStreamClientEndpoint."""
        self.attempts.append(self._world.clock.seconds())
        done: Deferred[IProtocol] = Deferred()

        def made() -> None:
            if done.called:
                return
            if self.refusing:
                done.errback(error.ConnectionRefusedError())
                return
            protocol = protocolFactory.buildProtocol(IPv4Address("TCP", "192.0.2.2", 7467))
            self._world.reach(cast("IProtocol", protocol))
            done.callback(cast("IProtocol", protocol))

        self._world.later(made)
        return done


class User:
    """Somebody with a client, whichever process that is in by now.

    :ivar happened: every event so far, of all of them.
    :ivar breaks_at: the number of the frame at which the connection breaks.
    """

    def __init__(self, world: World, called: str, store: FragileStore | None = None, /, **options: Any) -> None:
        self.world = world
        self.called = called
        self.happened: list[events.Event] = []
        self.way = Way(world)
        self.frames = 0
        self.breaks_at: int | None = None
        self.starts = 0
        self._seed = options.pop("seed", called)
        self._options = {"link": world.link(), "name": called, **options}
        self.use(store or FragileStore())

    def use(self, store: FragileStore) -> None:
        """Go on with a store."""
        self.store = store
        self.store.crashed = lambda: self.world.later(self.restart)
        self.starts += 1
        self.client = _Client(
            self.world.clock,
            store=store,
            on_event=self.happened.append,
            now=self.world.wall,
            entropy=Counting(f"{self._seed}/{self.starts}"),
            endpoint=lambda _: self.way,
            **self._options,
        )
        self.client.user = self

    # --- what a test does ---

    def start(self) -> User:
        """Connect, and stay connected."""
        self.client.start()
        return self

    def join(self) -> User:
        """Connect, and let everything happen."""
        self.start()
        self.world.settle()
        return self

    def do(self, command: Callable[[Messenger], object]) -> None:
        """Give a command, and let everything happen."""
        self.client.act(command)
        self.world.settle()

    def send(self, to: str | User, text: str, ref: str | None = None) -> None:
        """Send a text; nothing happens of it yet."""
        self.client.act(lambda messenger: messenger.send(to if isinstance(to, str) else to.id, text, ref))

    def cut(self) -> None:
        """The connection breaks: what is under way is lost, and both ends see a reset."""
        connection = self.client._connection
        if connection is not None and connection.transport is not None:
            fake = cast("Stream", connection.transport).fake
            for flow in (fake.incoming, fake.outgoing):
                flow.cut = True
                flow.reader.reset()

    def breaks(self) -> bool:
        """A frame is about to come or go: whether the connection breaks instead."""
        self.frames += 1
        if self.frames == self.breaks_at:
            self.cut()
            return True
        return False

    def kill(self) -> None:
        """The process ends at once."""
        client = self.client
        client.pump = lambda: None  # type: ignore[method-assign]
        client._wanted, client._closed = False, True
        for call in (client._retry, client._tick, client._unsettled):
            if call is not None and call.active():
                call.cancel()
        client.messenger.frames.clear()
        self.cut()

    def restart(self, store: FragileStore | None = None) -> None:
        """The process ends, and another one begins with what is stored."""
        self.kill()
        self.use(store or self.store.copy())
        self.start()

    # --- what it sees ---

    @property
    def id(self) -> str:
        """The id."""
        return self.client.messenger.id

    @property
    def messenger(self) -> Messenger:
        """What decides."""
        return self.client.messenger

    def all(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.happened if isinstance(event, kind)]

    def texts(self, sender: User | None = None) -> list[str]:
        """The texts that came: all, or those of one sender."""
        return [event.text for event in self.all(events.Message) if sender is None or event.sender.id == sender.id]

    def states(self, ref: str | None = None) -> list[str]:
        """How far texts have come, in order: all, or those of one command."""
        return [str(event.state) for event in self.all(events.State) if ref is None or event.ref == ref]

    def delivered(self) -> int:
        """How many texts are known to have arrived."""
        return len({event.id for event in self.all(events.State) if event.state is Delivery.DELIVERED})

    def problems(self) -> list[str]:
        """The codes of what went wrong."""
        return [str(event.code) for event in self.all(events.Problem)]


class World(ModernNetwork):
    """A server and its users."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"limits": LIFTED, **options})

    def link(self, invite: str | None = None) -> ServerLink:
        """The link to the server."""
        return ServerLink((Address("server.test", 7467),), self.identity.id, invite, False)

    def user(self, name: str, **options: Any) -> User:
        """Somebody new, who is connected."""
        return User(self, name, **options).join()

    def intercept(self, take: Callable[[str, inner.FromClient], inner.FromServer | bool]) -> None:
        """Let somebody take what clients send: given the sender's id and the message, it gives an answer, or True for
        none, or False to let it pass."""
        receive = self.modern_relay.receive

        def received(member: Any, plaintext: bytes) -> float:
            answer = take(member.id, inner.from_client(plaintext))
            if answer is False:
                return receive(member, plaintext)
            if not isinstance(answer, bool):
                member.deliver(inner.encode(answer))
            return 0.0

        cast("Any", self.modern_relay).receive = received

    def users(self, *names: str) -> list[User]:
        """Some of them."""
        return [self.user(name) for name in names]


class WorldTestCase(SynchronousTestCase):
    """A test with a world of its own."""

    def setUp(self) -> None:
        use_few_keys(self)
        self.world = World()

    def until(self, condition: Callable[[], bool], seconds: float = 120.0) -> None:
        """Let time pass until something is the case."""
        self.world.run_until(condition, seconds)

    def talk(self, one: User, other: User) -> None:
        """Both ways, a text arrives, and its sender hears of it."""
        for sender, recipient in ((one, other), (other, one)):
            text = f"{sender.called} {len(sender.happened)}"
            sender.send(recipient, text)
            self.until(lambda sender=sender, recipient=recipient, text=text: recipient.texts(sender)[-1:] == [text])  # type: ignore[misc]
            self.until(lambda sender=sender: sender.messenger.under_way == 0)  # type: ignore[misc]
            self.world.run_for(0.5)
            self.assertIn(sender.all(events.State)[-1].state, (Delivery.DELIVERED, Delivery.READ))


def refusal(mid: bytes, code: Code) -> inner.Error:
    """The server refuses something."""
    return inner.Error(mid=mid, data=inner.ErrorData(code=code.value, mid=mid))
