"""What comes from others: opened, noted, acknowledged, shown; receipts for it, questions about what was unreadable."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

from sims import inner
from sims.client import events
from sims.client.asking import Asking
from sims.client.desk import Desk
from sims.client.events import Delivery
from sims.client.history import CAME, UNREADABLE, Entry
from sims.client.lookups import Key
from sims.client.naming import Naming
from sims.client.store import Arrived
from sims.crypto.content import MAX_RECEIPT, Arrival, Disconnect, Place, Receipt, Text, Unreadable
from sims.errors import Code, LocalError, SimsError
from sims.inner import ClientCom, ClientConnect

#: Seconds: receipts are gathered for so long.
GATHER = 0.2


#: A text that its recipient cannot read, or has lost, is sent again so many times.
MOST_AGAIN = 20


class Reading:
    """Takes what comes from others, for one desk.

    :ivar asking: what could not be read, and is to be asked for.
    :ivar naming: holds back what comes of people whose names are not known.
    """

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
        self._receipts_due: float | None = None
        self._may_owe: set[str] = set()  # whom receipts may have to be sent now
        self.asking = Asking(desk.people, note=desk.ledger.person, want=desk.lookups.want, now=now)
        self.naming = Naming(contact=desk.people.contact, tell=desk.events.append, want=desk.lookups.want, clock=clock)

    def __repr__(self) -> str:
        return "<reading>"

    def resume(self) -> None:
        """Show what a client before this one could not show any more, and send its receipts."""
        for row in self._desk.inbox.unshown():
            self._show(row)
        for sender in self._desk.inbox.senders:
            self.may_send(sender)

    @property
    def under_way(self) -> int:
        """How many receipts are still to be sent, and can be."""
        return len(self._may_owe)

    def tick(self) -> float | None:
        """Do what is due; gives when to be called again."""
        if self._receipts_due is not None and self._receipts_due <= self._clock():
            self.send_receipts()
        now = self._now()
        for person in self._desk.people.begun(now):
            self.naming.show(events.Anew(peer=self._desk.people.contact(person)))
            self._send_again(person)
            self._forward(person)
        wait = self._desk.people.begun_in(now)
        times = (self.naming.tick(), self._receipts_due, None if wait is None else self._clock() + wait)
        return min((time for time in times if time is not None), default=None)

    # --- what comes ---------------------------------------------------------------------------------------------------

    def take(self, message: ClientCom | ClientConnect) -> None:
        """A message from somebody. Whatever it is, it is noted and acknowledged, so that it holds nothing up.

        :raises LocalError: ``unavailable``: the store cannot say whether it came before; nothing has happened, and it
            comes again. Where the store fails behind that, as much is done as can be without it.
        """
        desk, sender = self._desk, message.src
        if message.dst != desk.id or sender == desk.id or self._ledger.has_seen(sender, message.mid):
            (desk.acks_later if self._ledger.lazy else desk.acks).append(message.mid)
            return
        urgent = self._ledger.urgent
        before = desk.talks.find(sender)
        was_open = before is not None and not before.needs_bundle
        was_confirmed = before is not None and before.confirmed
        try:
            arrived = desk.talks.open(message)
        except SimsError as error:
            self._unreadable(message, error)
            desk.acks.append(message.mid)
            return
        self._ledger.seen(sender, message.mid, self._now())
        desk.acks.append(message.mid)
        if arrived.duplicate:
            return
        desk.people.heard(sender, self._now())
        after = desk.talks.find(sender)
        if after is not None and after.peer is not None:
            desk.people.learn(after.peer)
        if not was_open or (arrived.confirmed and not was_confirmed):
            begun = desk.conversation_event(sender, confirmed=arrived.confirmed)
            if begun is not None:
                self.naming.show(begun)
                self.may_send(sender)
        waits = bool(desk.outbox.unsealed(sender))
        if arrived.anew:
            desk.people.begins_anew(sender, arrived.session)
            desk.talks.set_aside(sender, arrived.session)
            desk.outbox.lose(sender)  # before the acts: some of them may be said to have come
        anew = arrived.anew and sender in desk.people.begun(self._now())
        if anew:
            self.naming.show(events.Anew(peer=desk.people.contact(sender)))
        for act in arrived.settled:
            self._settled(sender, act)
        for act in arrived.acts:
            self._act(sender, act, arrived.session, message.mid)
        if anew:
            self._send_again(sender)
        if arrived.due is not None:
            desk.talks.answer(sender, arrived.session)  # before anything is sealed, as that would carry the phase
        if arrived.confirmed:
            self._forward(sender)
        receipts = all(isinstance(act.content, Receipt) for act in arrived.acts)
        more = waits or arrived.due is not None or arrived.settled or arrived.anew
        if receipts and was_open and was_confirmed and not more:
            # Nobody waits for it, and nothing leaves for it. Until it is committed, it is not acknowledged.
            self._ledger.urgent, self._ledger.lazy = urgent, True
            desk.acks_later.append(desk.acks.pop())

    def _act(self, sender: str, act: Arrival, session: bytes, mid: bytes) -> None:
        desk = self._desk
        match act.content:
            case Text():
                self._text(sender, act, act.content, session, mid)
            case Receipt():
                state = Delivery.READ if act.content.state == "read" else Delivery.DELIVERED
                for number in act.content.ids:
                    letter = desk.outbox.text(number)
                    if letter is not None and letter.to == sender and letter.text is None:
                        desk.reached(letter, state, self._now())
            case Disconnect():
                self.naming.show(events.Disconnected(peer=desk.people.contact(sender)))
            case Unreadable():
                letter = desk.outbox.carried_by(act.content.ref)
                asked = letter is not None and letter.to == sender and letter.content is not None
                if letter is not None and asked and letter.again < MOST_AGAIN:
                    letter.state, letter.anew = Delivery.QUEUED, False
                    desk.outbox.unseal(letter, self._now())
                    if letter.id:
                        contact = desk.people.contact(sender)
                        desk.events.append(events.NotRead(to=contact, id=letter.id.hex(), again=letter.again))

    def _send_again(self, sender: str) -> None:
        """Somebody's store is another: what was sealed for that of before, and has not come, is sealed for this one.

        They could ask for one of these an hour only. What has come twice is shown once, by its id.
        """
        now, outbox = self._now(), self._desk.outbox
        self._desk.people.told_anew(sender, now)
        for letter in outbox.lost(sender):
            if letter.again < MOST_AGAIN:
                letter.anew = True
                outbox.unseal(letter, now)

    def _forward(self, sender: str) -> None:
        """What waits to be sealed for somebody can go now, in order."""
        for letter in self._desk.outbox.unsealed(sender):
            self._desk.forward(letter)
            if letter.is_due and letter.inner is None:
                return  # there is no session for it, nor for what is behind it

    def _text(self, sender: str, act: Arrival, text: Text, session: bytes, mid: bytes) -> None:
        desk, now = self._desk, self._now()
        if self._is_ours(sender, text.id):
            # What is said of one id would be said of two texts.
            contact = desk.people.contact(sender)
            self.naming.show(events.Unreadable(sender=contact, id=mid.hex(), code=Code.MALFORMED))
            return
        row = Arrived(number=0, sender=sender, id=text.id, session=session, confirmed=act.confirmed, time=now)
        seen = False
        with contextlib.suppress(LocalError):  # its message counts as seen: rather shown twice than lost
            seen = self._ledger.has_seen(sender, text.id)
        if not seen:
            self._ledger.seen(sender, text.id, now)
            row.text = text.body
            row.order = None if act.place is Place.IN_ORDER else str(act.place)
            if act.place is Place.GAP:
                row.missing = desk.talks.missing(sender, session, text)
            elif act.confirmed and desk.talks.is_whole(sender, session, text):
                desk.people.whole(sender)
            self._keep(row)
            self._show(row)
        # One that came before is answered once more: the first receipt may have been lost.
        desk.inbox.add(row)
        self.may_send(sender)

    def _is_ours(self, person: str, number: bytes) -> bool:
        """Whether a text that we have sent to somebody has this id."""
        letter = self._desk.outbox.text(number)
        if letter is not None:
            return letter.to == person
        with contextlib.suppress(LocalError):  # then it is taken as it is
            entry = self._ledger.entry("", number)
            return entry is not None and entry.peer == person
        return False

    def _keep(self, row: Arrived) -> None:
        person = self._desk.people.get(row.sender)
        self._ledger.said(
            Entry(
                id=row.id,
                sender=row.sender,
                peer=row.sender,
                text=row.text,
                state=CAME,
                time=row.time,
                verified=person is not None and person.verified,
                confirmed=row.confirmed,
                order=row.order,
                missing=row.missing,
            )
        )

    def _settled(self, sender: str, act: Arrival) -> None:
        """A text that was shown unconfirmed is confirmed now, and has its place."""
        with contextlib.suppress(LocalError):  # what is kept of it says less, and nothing is lost
            entry = self._ledger.entry(sender, act.content.id)
            if entry is not None:
                entry.text, entry.confirmed = None, True
                entry.order = None if act.place is Place.IN_ORDER else str(act.place)
                self._ledger.said(entry)

    def asked_for(self, sender: str, mid: bytes) -> None:
        """Somebody was asked for what could not be read."""
        with contextlib.suppress(LocalError):
            entry = self._ledger.entry(sender, mid)
            if entry is not None:
                entry.text, entry.times = None, {**entry.times, "asked": self._now()}
                self._ledger.said(entry)

    def _show(self, row: Arrived) -> None:
        person = self._desk.people.get(row.sender)
        self.naming.show(
            events.Message(
                sender=self._desk.people.contact(row.sender),
                text=row.text or "",
                id=row.id.hex(),
                verified=person is not None and person.verified,
                confirmed=row.confirmed,
                order=row.order,
                missing=row.missing,
                unreadable=tuple(mid.hex() for mid in person.unread) if person is not None and row.missing else (),
            )
        )

    def _unreadable(self, message: ClientCom | ClientConnect, error: SimsError) -> None:
        sender = message.src
        if isinstance(message, ClientConnect) and not inner.has_message(message):
            # A phase alone, of a session that is over: nothing that anybody has said is lost with it.
            self._ledger.unread(sender, message.mid, self._now())
            return
        known = self._desk.people.get(sender)
        stranger = not self._desk.talks.has(sender) and not (known is not None and (known.ours or known.heard))
        self._ledger.unread(sender, message.mid, self._now())
        event = events.Unreadable(sender=self._desk.people.contact(sender), id=message.mid.hex(), code=error.code)
        if stranger:
            self._desk.events.append(event)  # nobody is looked up for what may be anybody's
        else:
            self.naming.show(event)
        if self.asking.unreadable(sender, message.mid, stranger=stranger):
            # What nobody is asked for is not kept: anybody could send any number of it.
            now, code = self._now(), str(error.code)
            self._ledger.said(
                Entry(id=message.mid, sender=sender, peer=sender, text="", state=UNREADABLE, code=code, time=now)
            )

    # --- receipts -----------------------------------------------------------------------------------------------------

    def may_send(self, sender: str) -> None:
        """There is something to send receipts for, or a session to send them on."""
        owed = self._desk.inbox.owed(sender)
        if any(self._desk.talks.can_hear(sender, session) for session in owed):
            self._may_owe.add(sender)
            if self._receipts_due is None:
                self._receipts_due = self._clock() + GATHER
        elif self.needs_session(sender):
            self._desk.lookups.want(Key("id", sender))

    def shown(self, sender: str, number: bytes) -> bool:
        """A text was shown; False, if nothing of the kind was waiting for it."""
        found = self._desk.inbox.shown(sender, number)
        if found and self._read_receipts:
            self.may_send(sender)
        return found

    def needs_session(self, sender: str) -> bool:
        """Whether receipts wait for a session, and it is we who have ended the last."""
        known = self._desk.people.get(sender)
        return known is not None and known.renewed and bool(self._desk.inbox.owed(sender))

    def send_receipts(self) -> None:
        """Send the receipts that are gathered. Where there is no session to send them on, they wait for one."""
        self._receipts_due = None
        senders, self._may_owe = sorted(self._may_owe), set()
        talks, inbox = self._desk.talks, self._desk.inbox
        for sender in senders:
            for session, rows in inbox.owed(sender).items():
                for start in range(0, len(rows), MAX_RECEIPT):
                    some = rows[start : start + MAX_RECEIPT]
                    fresh = [row.id for row in some if not row.told]
                    if fresh and not talks.receipt(sender, session, fresh):
                        break
                    if self._read_receipts:
                        inbox.told([row for row in some if row.text is not None])
                        some = [row for row in some if row.text is None]
                        if some and not talks.receipt(sender, session, [row.id for row in some], read=True):
                            break
                    inbox.sent(some)
