"""Somebody whose texts nobody has read, and a peer who begins anew: for tests of what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from sims import inner
from sims.client import events
from sims.client.store import Letter
from sims.crypto.content import Arrival, Place, Receipt
from sims.crypto.streams import CHAIN_SIZE
from sims.errors import Code
from sims.test.modern_world import User, WorldTestCase, refusal

_LETTERS = (inner.ClientCom, inner.ClientConnect)
#: What ann has sent.
T = ["t0", "t1", "t2"]


class AnewTestCase(WorldTestCase):
    """Ann has sent bob some texts, which the server took and nobody has; then bob gives his sessions up.

    :ivar taking: takes the texts that ann sends, as :meth:`~sims.test.modern_world.World.intercept` has it.
    :ivar sent: how many she has sent.
    """

    taking: Callable[[inner.ClientCom | inner.ClientConnect], inner.FromServer | bool]

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")
        self.talk(self.ann, self.bob)
        self.sent = 0

        def take(src: str, message: inner.FromClient) -> inner.FromServer | bool:
            if src != self.ann.id or not isinstance(message, _LETTERS):
                return False
            letter = self.ann.messenger._desk.outbox.carried_by(message.mid)
            if letter is None or not letter.id:
                return False
            self.sent += 1
            return self.taking(message)

        self.world.intercept(take)
        self.taking = self.lose
        for text in T:
            self.ann.send("bob", text, text)
        self.world.run_for(2)
        self.taking = lambda _: False
        self.renew()

    def lose(self, message: inner.ClientCom | inner.ClientConnect) -> inner.FromServer:
        """Say that it was accepted, and drop it."""
        return inner.Ack(data=inner.AckData(mids=(message.mid,)))

    def full(self, message: inner.ClientCom | inner.ClientConnect) -> inner.FromServer:
        """No room for it."""
        return refusal(message.mid, Code.MAILBOX_FULL)

    def renew(self) -> None:
        """What bob says next begins anew."""
        self.bob.client.act(lambda messenger: messenger._desk.renew(self.ann.id))

    def hear(self, text: str = "hi") -> None:
        """Ann hears it."""
        told = len(self.ann.all(events.Anew))
        self.bob.send("ann", text)
        self.until(lambda: len(self.ann.all(events.Anew)) > told)

    def letters(self, user: User | None = None) -> list[Letter]:
        """The texts of ann's outbox, as they are stored."""
        return [one for one in (user or self.ann).store.load().letters.values() if one.id]

    def plain(self, text: str) -> list[Letter]:
        """The letters of ann's store in which a text stands as it is."""
        return [one for one in self.ann.store.load().letters.values() if text.encode() in (one.content or b"")]

    def receipt(self, letters: Sequence[Letter]) -> None:
        """Ann hears that they have come."""
        ids = tuple(one.id for one in letters)
        said = Receipt(
            id=bytes(16), stream=bytes(8), seq=1, time=1, ids=ids, state="delivered", chain=bytes(CHAIN_SIZE)
        )
        act = Arrival(said, b"", Place.IN_ORDER, True)
        self.ann.client.act(lambda messenger: messenger._reading._act(self.bob.id, act, bytes(32), bytes(16)))
