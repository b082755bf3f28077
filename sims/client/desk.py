"""What the parts of the user's end share: what is known, what is under way, and how it is told."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from sims.client import events
from sims.client.events import Contact, Delivery
from sims.client.ledger import Ledger
from sims.client.lookups import Key, Lookups
from sims.client.outbox import Outbox
from sims.client.people import People
from sims.client.store import Letter
from sims.client.talks import Talks
from sims.errors import Code, SimsError

Ref = str | int | None


class Desk:
    """The state of one user.

    :ivar events: what happened, in order.
    :ivar acks: the mids of messages that are noted and not acknowledged yet.
    :ivar refs: of letters, those of the commands that asked for them.
    """

    def __init__(
        self, own_id: str, *, ledger: Ledger, people: People, outbox: Outbox, talks: Talks, lookups: Lookups
    ) -> None:
        self.id = own_id
        self.ledger = ledger
        self.people = people
        self.outbox = outbox
        self.talks = talks
        self.lookups = lookups
        self.events: deque[events.Event] = deque()
        self.acks: list[bytes] = []
        self.refs: dict[int, Ref] = {}

    def __repr__(self) -> str:
        return f"<desk of {self.id}>"

    def forward(self, letter: Letter) -> None:
        """Seal a text, or find out what is missing for that."""
        if not letter.to:
            held = self.people.named(letter.name)
            if held is None:
                self.lookups.want(Key("name", letter.name))
                return
            letter.to = held.id
            self.outbox.note(letter)
        if self.talks.needs_bundle(letter.to):
            self.lookups.want(Key("id", letter.to))
            return
        for waiting in self.outbox.unsealed(letter.to):
            try:
                self.talks.say(waiting)
            except SimsError as error:
                self.fail(waiting, error.code)

    def state(self, letter: Letter, *, code: Code | None = None, text: str | None = None) -> None:
        if letter.id:
            contact = self.people.contact(letter.to) if letter.to else Contact("", letter.name)
            ref = self.refs.get(letter.number)
            if letter.state in (Delivery.FAILED, Delivery.READ):
                self.refs.pop(letter.number, None)
            state = events.State(id=letter.id.hex(), to=contact, state=letter.state, text=text, code=code, ref=ref)
            self.events.append(state)

    def fail(self, letter: Letter, code: Code) -> None:
        """A letter will not be delivered."""
        letter.state = Delivery.FAILED
        self.state(letter, code=code)
        self.outbox.drop(letter)

    def reached(self, letter: Letter, state: Delivery) -> None:
        """A letter has come further; the recipient says so, or the server."""
        if not letter.state.reaches(state):
            letter.state = state
            letter.inner = None
            if state in (Delivery.DELIVERED, Delivery.READ):
                letter.content = None
            self.state(letter)
            self.outbox.note(letter)

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
        """The server, or a link, gives other ids for names that are held."""
        for held in self.people.take_changes():
            contact = Contact(held.id, held.name)
            self.events.append(events.IdentityChanged(peer=contact, old=held.id, new=held.changed_to))
