"""What the parts of the user's end share: what is known, what is under way, and how it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

from sims.client import events
from sims.client.events import EXPIRED, Contact, Delivery
from sims.client.inbox import Inbox
from sims.client.ledger import Ledger
from sims.client.lookups import Key, Lookups
from sims.client.outbox import Outbox
from sims.client.people import People
from sims.client.store import Letter
from sims.client.talks import Talks
from sims.errors import Code, SimsError

Ref = str | int | None

#: So many letters of one person are sealed at once.
MOST_AT_ONCE = 1000


class Desk:
    """The state of one user.

    :ivar events: what happened, in order.
    :ivar acks: the mids of messages that are noted and not acknowledged yet; ``acks_later`` of those that may be noted
        lazily, and so are acknowledged after that.
    :ivar refs: of letters, those of the commands that asked for them.
    """

    def __init__(
        self,
        own_id: str,
        *,
        ledger: Ledger,
        people: People,
        outbox: Outbox,
        inbox: Inbox,
        talks: Talks,
        lookups: Lookups,
        now: Callable[[], int],
    ) -> None:
        self.id = own_id
        self.ledger = ledger
        self.people = people
        self.outbox = outbox
        self.inbox = inbox
        self.talks = talks
        self.lookups = lookups
        self.now = now
        self.events: deque[events.Event] = deque()
        self.acks: list[bytes] = []
        self.acks_later: list[bytes] = []
        self.refs: dict[int, Ref] = {}
        self._more: set[str] = set()  # to whom there is more to seal

    def __repr__(self) -> str:
        return f"<desk of {self.id}>"

    # --- letters ------------------------------------------------------------------------------------------------------

    def forward(self, letter: Letter) -> None:
        """Seal a text, or find out what is missing for that."""
        if not letter.is_due or letter.inner is not None:
            return
        if not letter.to:
            held = self.people.named(letter.name)
            if held is None:
                self.lookups.want(Key("name", letter.name))
                return
            letter.to = held.id
            self.outbox.note(letter)
        known = self.people.get(letter.to)
        if letter.to == self.id or (known is not None and known.changed_to):
            self.fail(letter, Code.POLICY)
        elif self.talks.needs_bundle(letter.to):
            self.lookups.want(Key("id", letter.to))
        else:
            self.seal(letter.to)

    def seal(self, person: str) -> None:
        """Seal what waits for somebody, in order, while there is a session: up to 1,000, and what is more later."""
        if person in self._more:
            return
        unsealed = self.outbox.unsealed(person)
        for waiting in unsealed[:MOST_AT_ONCE]:
            if self.talks.needs_bundle(person):
                self.lookups.want(Key("id", person))  # one before it has failed, and the session with it
                return
            try:
                self.talks.say(waiting)
            except SimsError as error:
                self.fail(waiting, error.code)
        if len(unsealed) > MOST_AT_ONCE:
            self._more.add(person)

    def seal_more(self) -> bool:
        """Go on with what there was too much of; gives whether there still is."""
        more, self._more = self._more, set()
        for person in more:
            self.seal(person)
        return bool(self._more)

    def state(self, letter: Letter, *, text: str | None = None) -> None:
        """Tell how far a text has come."""
        if not letter.id:
            return
        code: Code | Literal["expired"] | None = None
        if letter.code:
            code = EXPIRED if letter.code == EXPIRED else Code(letter.code)
        self.events.append(
            events.State(
                id=letter.id.hex(),
                to=self.people.contact(letter.to) if letter.to else Contact("", letter.name),
                state=letter.state,
                text=text,
                code=code,
                ref=self.refs.get(letter.number),
            )
        )

    def fail(self, letter: Letter, code: str) -> None:
        """A letter will not be delivered. It is kept until that was told."""
        if letter.anew and letter.state is Delivery.ACCEPTED and code != EXPIRED:
            self._sent_again(letter)  # which says nothing of the first
            return
        sealed = letter.content is not None
        letter.state, letter.code = Delivery.FAILED, str(code)
        letter.times = {**letter.times, Delivery.FAILED.value: self.now()}
        letter.text = letter.content = None
        self._let_be(letter)
        if not letter.id:
            self.drop(letter)
        else:
            self.outbox.note(letter)
            self.state(letter)
        if sealed:
            # It has a place in the stream, which nothing will take: all that followed would count as behind a gap.
            self.renew(letter.to)

    def renew(self, person: str) -> None:
        """What was said to somebody is not what they will have heard: a new stream, and a new session for it."""
        known = self.people.meet(person)
        self.talks.renew(person)
        known.renewed = True
        self.ledger.person(known)

    def drop(self, letter: Letter, *, urgent: bool = True) -> None:
        """Nobody will ask for a letter any more."""
        self.refs.pop(letter.number, None)
        self.outbox.drop(letter, urgent=urgent)

    def reached(self, letter: Letter, state: Delivery, now: int) -> None:
        """A letter has come further; the recipient says so, or the server."""
        if letter.state is Delivery.FAILED:
            return
        if letter.state.reaches(state):
            if letter.anew:
                self._sent_again(letter)
            return
        if letter.state is Delivery.QUEUED and state is not Delivery.ACCEPTED:
            # The recipient's word was quicker than the server's, which it implies.
            self._come_to(letter, Delivery.ACCEPTED, now)
            self.state(letter)
        self._come_to(letter, state, now)
        self._let_be(letter)
        if state in (Delivery.DELIVERED, Delivery.READ):
            letter.content = None
        self.outbox.note(letter)
        self.state(letter)

    def accepted_before(self, mid: bytes) -> bool:
        """The server has what carried a text before it was sealed once more, which is to be sent still.

        False, and nothing has happened, where it was nothing of the kind.
        """
        letter = self.outbox.carried_before(mid)
        if letter is None:
            return False
        self._come_to(letter, Delivery.ACCEPTED, self.now())
        self.outbox.note(letter)
        self.state(letter)
        return True

    def _come_to(self, letter: Letter, state: Delivery, now: int) -> None:
        letter.state = state
        letter.times = {**letter.times, state.value: now}
        letter.accepted = letter.accepted or now

    def _sent_again(self, letter: Letter) -> None:
        """What was sent once more is answered, or given up: the letter is as it was before."""
        self._let_be(letter)
        self.outbox.note(letter)

    def _let_be(self, letter: Letter) -> None:
        if letter.anew and letter.inner is None:  # it was not sent
            letter.again, letter.lost = letter.again - 1, True
            if not letter.again:
                letter.times = {name: when for name, when in letter.times.items() if name != "again"}
        letter.inner, letter.anew = None, False

    # --- conversations ------------------------------------------------------------------------------------------------

    def connected(self, person: str, *, confirmed: bool, refs: Sequence[Ref] = (None,)) -> None:
        """Tell that there is a conversation, to each who asked for it."""
        for ref in refs or (None,):
            event = self.conversation_event(person, confirmed=confirmed, ref=ref)
            if event is not None:
                self.events.append(event)

    def conversation_event(self, person: str, *, confirmed: bool, ref: Ref = None) -> events.Connected | None:
        """What is told of a conversation; None while there is none."""
        conversation = self.talks.find(person)
        known = self.people.get(person)
        if conversation is None or conversation.spec is None:
            return None
        return events.Connected(
            peer=self.people.contact(person),
            spec=conversation.spec.name,
            verified=known is not None and known.verified,
            confirmed=confirmed,
            ref=ref,
        )

    def tell_changes(self) -> None:
        """The server, or a link, gives other ids for names that are held: what waits for them goes nowhere."""
        for held in self.people.take_changes():
            contact = Contact(held.id, held.name)
            self.events.append(events.IdentityChanged(peer=contact, old=held.id, new=held.changed_to))
            for letter in self.outbox.unsealed(held.id):
                self.fail(letter, Code.POLICY)

    def problem(self, code: Code, text: str, ref: Ref = None) -> None:
        """Tell that something was refused or did not work."""
        self.events.append(events.Problem(code=code, text=text, ref=ref))
