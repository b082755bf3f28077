"""What comes from others: opened, noted, acknowledged, shown; receipts for it, questions about what was unreadable."""

from __future__ import annotations

from collections.abc import Callable

from msgspec.structs import replace

from sims.client import events
from sims.client.desk import Desk
from sims.client.events import Delivery
from sims.client.lookups import Key
from sims.crypto.content import MAX_RECEIPT, Arrival, Disconnect, Place, Receipt, Text, Unreadable
from sims.errors import LocalError, SimsError
from sims.inner import ClientCom, ClientConnect

#: Seconds: receipts are gathered for so long; events of somebody whose name is not known yet wait for it for so long.
GATHER = 0.2
NAME_TIMEOUT = 2.0
#: What could not be read is asked for once in so many seconds per person, and so many times a day in all.
ASK_EVERY = 3600
ASKS_A_DAY = 20
_DAY = 86_400

_Shown = events.Message | events.Unreadable | events.Connected


class Reading:
    """Takes what comes from others, for one desk."""

    def __init__(
        self,
        desk: Desk,
        *,
        clock: Callable[[], float],
        now: Callable[[], int],
        read_receipts: bool,
    ) -> None:
        self._desk = desk
        self._ledger = desk.ledger
        self._clock = clock
        self._now = now
        self._read_receipts = read_receipts
        self._receipts: dict[tuple[str, bytes], list[bytes]] = {}  # (sender, session) -> ids
        self._receipts_due: float | None = None
        self._held: dict[
            str, list[events.Message | events.Unreadable | events.Connected]
        ] = {}  # until the sender's name is known
        self._held_until: dict[str, float] = {}
        self._nameless: set[str] = set()
        self._asks: dict[str, bytes] = {}  # person -> the mid to ask for, once there is a bundle
        self._asked: list[int] = []  # when it was asked, today

    def __repr__(self) -> str:
        return "<reading>"

    @property
    def under_way(self) -> int:
        """How many receipts are still to be sent."""
        return len(self._receipts)

    def tick(self) -> float | None:
        """Do what is due; gives when to be called again."""
        now = self._clock()
        if self._receipts_due is not None and self._receipts_due <= now:
            self.send_receipts()
        for person in [person for person, until in self._held_until.items() if until <= now]:
            self._release(person)
        times = [*self._held_until.values()]
        if self._receipts_due is not None:
            times.append(self._receipts_due)
        return min(times, default=None)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def take(self, message: ClientCom | ClientConnect) -> None:
        """A message from somebody. Whatever it is, it is noted and acknowledged, so that it holds nothing up."""
        desk = self._desk
        desk.acks.append(message.mid)
        sender = message.src
        if message.dst != desk.id or sender == desk.id or self._ledger.has_seen(sender, message.mid):
            return
        self._ledger.seen(sender, message.mid, self._now())
        before = desk.talks.find(sender)
        was = before is not None and before.confirmed
        try:
            arrived = desk.talks.open(message)
        except SimsError as error:
            self._unreadable(message, error)
            return
        if arrived.duplicate:
            return
        desk.people.meet(sender)
        after = desk.talks.find(sender)
        if after is not None and after.peer is not None:
            desk.people.learn(after.peer)
        if before is None or before.needs_bundle or (arrived.confirmed and not was):
            begun = desk.conversation_event(sender, confirmed=arrived.confirmed)
            if begun is not None:
                self._show(begun)
        for act in arrived.acts:
            self._act(sender, act, arrived.session)
        if arrived.due is not None:
            desk.talks.answer(sender, arrived.session)

    def _act(self, sender: str, act: Arrival, session: bytes) -> None:
        match act.content:
            case Text():
                self._text(sender, act, act.content, session)
            case Receipt():
                state = Delivery.READ if act.content.state == "read" else Delivery.DELIVERED
                for number in act.content.ids:
                    letter = self._desk.outbox.text(number)
                    if letter is not None and letter.to == sender and letter.state is not Delivery.FAILED:
                        self._desk.reached(letter, state)
            case Disconnect():
                contact = self._desk.people.contact(sender)
                self._desk.events.append(events.Disconnected(peer=contact))
            case Unreadable():
                letter = self._desk.outbox.carried_by(act.content.ref)
                asked = letter is not None and letter.to == sender and letter.content is not None
                if letter is not None and asked and not letter.again:
                    try:
                        self._desk.talks.again(letter)
                    except LocalError as error:
                        self._desk.fail(letter, error.code)

    def _text(self, sender: str, act: Arrival, text: Text, session: bytes) -> None:
        ids = self._receipts.setdefault((sender, session), [])
        if text.id not in ids:  # one that came before is answered once more: the first receipt may have been lost
            ids.append(text.id)
        if self._receipts_due is None:
            self._receipts_due = self._clock() + GATHER
        if self._ledger.has_seen(sender, text.id):
            return
        self._ledger.seen(sender, text.id, self._now())
        person = self._desk.people.get(sender)
        shown = events.Message(
            sender=self._desk.people.contact(sender),
            text=text.body,
            id=text.id.hex(),
            verified=person is not None and person.verified,
            confirmed=act.confirmed,
            order=None if act.place is Place.IN_ORDER else str(act.place),
        )
        self._show(shown)

    def _unreadable(self, message: ClientCom | ClientConnect, error: SimsError) -> None:
        contact = self._desk.people.contact(message.src)
        self._show(events.Unreadable(sender=contact, id=message.mid.hex(), code=error.code))
        person = self._desk.people.get(message.src)
        now = self._now()
        self._asked = [when for when in self._asked if now - when < _DAY]
        recently = person is not None and now - person.asked < ASK_EVERY
        if recently or message.src in self._asks or len(self._asked) + len(self._asks) >= ASKS_A_DAY:
            return
        self._asks[message.src] = message.mid
        self._desk.lookups.want(Key("id", message.src))

    def asks(self, person: str) -> bytes | None:
        """The mid of a message that somebody is to be asked for again."""
        return self._asks.get(person)

    def asked(self, person: str) -> None:
        """It was."""
        self._asks.pop(person, None)
        now = self._now()
        self._asked.append(now)
        known = self._desk.people.meet(person)
        known.asked = now
        self._ledger.person(known)

    def send_receipts(self) -> None:
        """Send the receipts that are gathered."""
        self._receipts_due = None
        receipts, self._receipts = self._receipts, {}
        for (sender, session), ids in receipts.items():
            for start in range(0, len(ids), MAX_RECEIPT):
                some = ids[start : start + MAX_RECEIPT]
                self._desk.talks.receipt(sender, session, some)
                if self._read_receipts:
                    self._desk.talks.receipt(sender, session, some, read=True)

    # --- names --------------------------------------------------------------------------------------------------------

    def _show(self, event: _Shown) -> None:
        """Show what came; of somebody whose name is not known, once the server has been asked for it."""
        contact = event.peer if isinstance(event, events.Connected) else event.sender
        if contact.name or contact.id in self._nameless:
            self._desk.events.append(event)
            return
        if contact.id not in self._held:
            self._held[contact.id] = []
            self._held_until[contact.id] = self._clock() + NAME_TIMEOUT
            self._desk.lookups.want(Key("id", contact.id))
        self._held[contact.id].append(event)

    def named(self, person: str) -> None:
        """The server was asked for a name, and has answered."""
        if person in self._held:
            self._release(person)

    def _release(self, person: str) -> None:
        contact = self._desk.people.contact(person)
        if not contact.name:
            self._nameless.add(person)  # it was asked for in vain: what comes next does not wait again
        self._held_until.pop(person, None)
        for event in self._held.pop(person, ()):
            if isinstance(event, events.Connected):
                self._desk.events.append(replace(event, peer=contact))
            else:
                self._desk.events.append(replace(event, sender=contact))
