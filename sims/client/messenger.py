"""The user's end of sims/2: one hop to the server, a conversation for each person, and what is to be kept. No reactor.

Frames and commands in, frames and events out. What has changed is committed by :meth:`Messenger.settle` before any
frame or event that follows from it leaves; acknowledgements of what came are sent only then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from sims import specs
from sims.client import events as told
from sims.client.commands import Commands
from sims.client.desk import Desk
from sims.client.driven import MOST_SHOWN
from sims.client.events import EXPIRED, Delivery, Event, Ready
from sims.client.inbox import Inbox
from sims.client.ledger import Ledger
from sims.client.lookups import Key, Lookups
from sims.client.meeting import Meeting
from sims.client.modern_hop import ModernHop
from sims.client.online import Online
from sims.client.outbox import Outbox
from sims.client.people import People
from sims.client.profile import open_profile
from sims.client.publishing import Publishing
from sims.client.reading import Reading
from sims.client.remembering import Remembering
from sims.client.store import Store
from sims.client.talks import Talks
from sims.crypto.identity import ServerLink
from sims.crypto.prekeys import OwnPrekeys
from sims.crypto.primitives import ModernEntropy, SystemEntropy
from sims.errors import Code, LocalError, PeerError
from sims.specs import ModernSpec

#: Seconds that what was shown may wait to be noted as such: after a crash it is shown once more.
NOTE_SHOWN = 0.1
#: Seconds that what others would say again may wait to be committed.
LAZY = 0.2
#: What was seen is remembered for so long: a mailbox keeps a message for less. Seconds.
SEEN_LIFE = 90 * 86_400
_DAY = 86_400


class Messenger(Commands):
    """One user of sims/2.

    :ivar link: the server.
    :ivar hop: the connection to it.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float],
        now: Callable[[], float],
        link: ServerLink | None = None,
        name: str | None = None,
        invite: Callable[[], str | None] = lambda: None,
        allowed: Sequence[ModernSpec] = specs.MODERN,
        entropy: ModernEntropy | None = None,
        read_receipts: bool = False,
        history: bool | None = None,
    ) -> None:
        """Go on from what is in a store, or begin.

        :param clock: seconds, never backwards; ``now``: Unix seconds.
        :param link: the server; needed the first time only.
        :param name: the name to be known by; needed the first time only.
        :param invite: asked for an invitation where the server has not taken us in yet.
        :param history: whether what is said is kept from now on, by this client and those after it; None, as before, at
            first yes.
        :raises LocalError: ``policy``: the store is of another server or name, or the first time something is missing;
            ``name-invalid``; ``unavailable``: the store cannot be read.
        """
        saved = store.load()
        self._clock = clock
        self._now: Callable[[], int] = lambda: int(now())
        self._entropy = entropy or SystemEntropy()
        self._ledger = Ledger(store)
        own = open_profile(saved.values, link, name, self._ledger, self._entropy)
        self.link, self._identity = own.link, own.identity
        self._ledger.keeps_history = "no history" not in saved.values if history is None else history
        if history is not None:
            self._ledger.value("no history", None if history else b"1")
        self._tidied = 0
        self._lazy: float | None = None  # when to commit what can wait for company
        self._note_shown: float | None = None  # when to commit what was shown
        self._shown = 0
        self.hop = ModernHop(self._identity, self.link, allowed, clock=clock, entropy=self._entropy)
        outbox = Outbox(saved.letters.values(), self._ledger)
        people = People(saved.people.values(), self._ledger)
        try:
            prekeys = OwnPrekeys.load(saved.values["prekeys"]) if "prekeys" in saved.values else OwnPrekeys()
        except PeerError:
            raise LocalError(Code.UNAVAILABLE, "the profile was written by another version of this program") from None
        talks = Talks(
            self._identity,
            allowed,
            prekeys,
            saved.conversations,
            outbox,
            self._ledger,
            now=self._now,
            entropy=self._entropy,
            post=lambda letter: self._online.post(letter),
        )
        self._desk = Desk(
            self._identity.id,
            ledger=self._ledger,
            people=people,
            outbox=outbox,
            inbox=Inbox(saved.arrived.values(), self._ledger),
            talks=talks,
            lookups=Lookups(lambda fetch: self._online.send(fetch), clock=clock, random=self._entropy.octets),
            now=self._now,
        )
        self._online = Online(
            self._desk,
            self.hop,
            own,
            clock=clock,
            now=self._now,
            invite=invite,
            invited=link.invite if link is not None else None,
            random=self._entropy.octets,
        )
        publishing = Publishing(
            self._identity,
            allowed,
            talks,
            self._ledger,
            entropy=self._entropy,
            send=self._online.send,
            fetch_own=lambda: self._desk.lookups.want(Key("id", self.id)),
            outdated="outdated" in saved.values,
        )
        self._reading = Reading(self._desk, clock=clock, now=self._now, read_receipts=read_receipts)
        self._meeting = Meeting(self._desk, self._reading, publishing, self._now)
        self._online.reading, self._online.meeting = self._reading, self._meeting
        self._online.publishing = publishing
        self._remembering = Remembering(self._desk, self._online)
        self._reading.resume()
        for letter in outbox.failed():
            self._desk.state(letter)

    def __repr__(self) -> str:
        return f"<messenger {self._identity.id} {self.hop.state.name.lower()}>"

    # --- the connection -----------------------------------------------------------------------------------------------

    @property
    def events(self) -> deque[Event]:
        """What happened, in order; :meth:`told` says which of it was told."""
        return self._desk.events

    @property
    def frames(self) -> deque[bytes]:
        """To be written, without terminators."""
        return self.hop.frames

    @property
    def ready(self) -> Ready | None:
        """Said when the handshake with the server is through; None while it is not."""
        spec = self.hop.spec
        return None if spec is None else Ready(id=self.id, name=self.name, spec=spec.name)

    @property
    def waiting(self) -> int:
        """How many messages that the server has caused wait for it to take them."""
        return self._online.waiting

    @property
    def may_retry(self) -> bool:
        """Whether the refusal of connect that came last may be over with the next attempt."""
        return self._online.may_retry

    def connected(self, binding: bytes) -> None:
        """A new connection to the server is there."""
        self._online.connected(binding)

    def lost(self) -> None:
        """The connection is gone. What the server has not accepted is sent again on the next."""
        self._online.lost()

    def receive(self, frame: bytes) -> None:
        """One frame from the server.

        :raises PeerError: the connection is to be closed; what is wrong with a message becomes an event instead.
        :raises LocalError: ``unavailable``: the store cannot be asked; likewise.
        """
        self._online.receive(frame)

    def slowed(self, congested: bool) -> None:
        """The way to the server is behind, or has caught up."""
        self._online.slowed(congested)

    def settle(self) -> None:
        """Commit what has changed; then seal what waited for that.

        :raises LocalError: ``unavailable``: it cannot be committed, and nothing of it has left.
        """
        now = self._clock()
        if self._ledger.urgent or any(due is not None and due <= now for due in (self._note_shown, self._lazy)):
            self._ledger.commit()
            self._note_shown, self._shown, self._lazy = None, 0, None
            self._desk.acks += self._desk.acks_later
            self._desk.acks_later.clear()
        self._online.flush()

    def tick(self) -> float | None:
        """Do what is due; gives when to be called again."""
        if self._now() - self._tidied >= _DAY:
            self._tidied = self._now()
            self._tidy()
        read, more, sent = self._reading.tick(), self._desk.seal_more(), self._online.tick()
        if self._ledger.lazy and self._lazy is None:
            self._lazy = self._clock() + LAZY
        due = (read, self._clock() if more else None, sent, self._note_shown, self._lazy)
        # However far off the next of them is: the keys of the hop have an age, too.
        return min((self._clock() + 60, *(time for time in due if time is not None)))

    def told(self, event: Event) -> None:
        """An event was shown to the user: after a crash it need not be shown again."""
        noted = False
        if isinstance(event, told.Message):
            noted = self._reading.shown(event.sender.id, bytes.fromhex(event.id))
        elif isinstance(event, told.State) and event.state is Delivery.FAILED:
            letter = self._desk.outbox.failed_text(bytes.fromhex(event.id))
            if letter is not None:
                self._desk.drop(letter, urgent=False)
                noted = True
        if noted:
            self._shown += 1
            if self._note_shown is None or self._shown == MOST_SHOWN:
                self._note_shown = self._clock() + (NOTE_SHOWN if self._shown < MOST_SHOWN else 0.0)

    def leave(self) -> None:
        """The user leaves: what is gathered goes out, and what was shown is noted."""
        self._reading.send_receipts()
        if self._note_shown is not None:
            self._note_shown = self._clock()
        if self._ledger.lazy:
            self._lazy = self._clock()

    # --- once a day ---------------------------------------------------------------------------------------------------

    def _tidy(self) -> None:
        desk, now = self._desk, self._now()
        desk.talks.expire()
        desk.talks.forget_prekeys(self._online.emptied)
        for letter in desk.outbox.expired(now):
            if letter.id and letter.state is Delivery.ACCEPTED:
                desk.fail(letter, EXPIRED)
            else:
                desk.drop(letter)
        desk.inbox.expire(now)
        for person in desk.people.strangers(now):
            desk.talks.forget(person.id)
            desk.inbox.forget(person.id)
            desk.people.forget(person)
        self._ledger.forget_seen(now - SEEN_LIFE)
