"""What a user asks for: the commands of a messenger. What comes of them is told in events."""

from __future__ import annotations

from collections.abc import Callable

from sims.client import events as told
from sims.client.desk import Desk, Ref
from sims.client.events import Contact
from sims.client.history import PAGE
from sims.client.lookups import Key
from sims.client.meeting import Meeting
from sims.client.names import folded
from sims.client.online import Online
from sims.client.reading import Reading
from sims.client.remembering import Remembering
from sims.client.store import Letter, Person
from sims.crypto.identity import Identity, PersonLink, PublicIdentity, ServerLink, safety_number
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code, LocalError

#: The longest text, bytes of its UTF-8: with what goes with it, it fits in the largest size of a content.
MAX_TEXT = 32_000


class Commands:
    """The part of :class:`~sims.client.messenger.Messenger` that does what it is told; that one makes the parts."""

    link: ServerLink
    _identity: Identity
    _entropy: ModernEntropy
    _now: Callable[[], int]
    _desk: Desk
    _online: Online
    _meeting: Meeting
    _reading: Reading
    _remembering: Remembering

    @property
    def id(self) -> str:
        """The own id."""
        return self._identity.id

    @property
    def name(self) -> str:
        """The own name; the server's word, once it has given it."""
        return self._online.name

    def list(self, ref: Ref = None) -> None:
        """Ask who is here; the answer is a :class:`~sims.client.events.Listing`.

        :raises LocalError: ``unavailable``.
        """
        self._online.list(ref)

    def send(self, to: str, text: str, ref: Ref = None) -> None:
        """Send a text to an id, a name, or a link; what becomes of it is told in States.

        :raises LocalError: ``malformed``, ``too-large``, ``policy``, ``unknown-recipient``.
        """
        try:
            size = len(text.encode("utf-8"))
        except UnicodeEncodeError:
            raise LocalError(Code.MALFORMED, "a text that holds half a character") from None
        if size > MAX_TEXT:
            raise LocalError(Code.TOO_LARGE, f"a text of {size} bytes, where {MAX_TEXT} can be sent")
        person, name = self._recipient(to)
        letter = Letter(number=0, to=person, name=name, id=self._entropy.octets(16), text=text, time=self._now())
        self._desk.refs[self._desk.outbox.add(letter).number] = ref
        self._desk.state(letter, text=text)
        self._desk.forward(letter)

    def connect(self, to: str, ref: Ref = None) -> None:
        """Open a conversation; a :class:`~sims.client.events.Connected` tells when there is one, and when the peer has
        confirmed it.

        :raises LocalError: ``malformed``, ``policy``, ``unknown-recipient``.
        """
        self._open(*self._recipient(to), ref)

    def _open(self, person: str, name: str, ref: Ref) -> None:
        conversation = self._desk.talks.find(person) if person else None
        if conversation is not None and not conversation.needs_bundle:
            self._desk.connected(person, confirmed=conversation.confirmed, refs=(ref,))
            return
        self._meeting.open(Key("id", person) if person else Key("name", name), ref)

    def disconnect(self, to: str, ref: Ref = None) -> None:
        """Close a conversation.

        :raises LocalError: ``unknown-recipient``, when there is none.
        """
        person, _ = self._found(to)
        conversation = self._desk.talks.find(person) if person else None
        if conversation is None or conversation.needs_bundle:
            raise LocalError(Code.UNKNOWN_RECIPIENT, "there is no conversation to close")
        self._reading.send_receipts()  # they could not be sent behind it
        self._desk.talks.disconnect(person)
        self._desk.events.append(told.Disconnected(peer=self._desk.people.contact(person), ref=ref))

    def own_link(self, ref: Ref = None) -> None:
        """Tell the own link."""
        link = PersonLink(self.link.addresses, self.link.id, self.name, self.id, self.link.tls)
        self._desk.events.append(told.Link(link=str(link), ref=ref))

    def verify(self, to: str, ref: Ref = None) -> None:
        """Tell the safety number of somebody.

        :raises LocalError: ``unknown-recipient``, when nobody is known by that, or their keys are not known yet.
        """
        person = self._known(to)
        if not person.sign:
            raise LocalError(Code.UNKNOWN_RECIPIENT, "their keys are not known yet: connect first")
        number = safety_number(self._identity.public, PublicIdentity(person.sign, person.dh))
        self._desk.events.append(told.SafetyNumber(peer=self._desk.people.contact(person.id), number=number, ref=ref))

    def trust(self, to: str, ref: Ref = None) -> None:
        """The safety number was compared: mark somebody as verified.

        :raises LocalError: ``unknown-recipient``.
        """
        person = self._known(to)
        self._desk.people.trust(person)
        self._desk.events.append(told.Trusted(peer=self._desk.people.contact(person.id), ref=ref))

    def accept_identity(self, to: str, ref: Ref = None) -> None:
        """Take the other id that the server gives for a name, and open a conversation with it.

        :raises LocalError: ``unknown-recipient``; ``policy``, when there is nothing to take.
        """
        self._open(self._desk.people.accept(self._known(to)).id, "", ref)

    # --- what was said before -----------------------------------------------------------------------------------------

    def history(self, to: str, limit: int = PAGE, before: str | None = None, ref: Ref = None) -> None:
        """Tell what was said with somebody, the newest that there is, or that came before the message of an id.

        :raises LocalError: ``malformed``, ``unknown-recipient``, ``policy``; ``unavailable``, as the others below.
        """
        self._remembering.history(*self._found(to), limit, before, ref)

    def search(self, text: str, limit: int = PAGE, ref: Ref = None) -> None:
        """Tell where words were said.

        :raises LocalError: ``malformed``.
        """
        self._remembering.search(text, limit, ref)

    def why(self, number: str, ref: Ref = None) -> None:
        """Tell what has become of a message, by its id or the beginning of that.

        :raises LocalError: ``malformed``, ``unknown-recipient``.
        """
        self._remembering.why(number, ref)

    def delete(self, to: str, ref: Ref = None) -> None:
        """Delete what was said with somebody, as :meth:`~sims.client.remembering.Remembering.delete`.

        :raises LocalError: ``unknown-recipient``, when nothing is kept of anybody by that.
        """
        self._remembering.delete(*self._found(to), ref)

    # --- the account --------------------------------------------------------------------------------------------------

    def about(self, ref: Ref = None) -> None:
        """Ask what the server keeps on us; the answer is an :class:`~sims.client.events.About`.

        :raises LocalError: ``unavailable``.
        """
        self._online.need()
        self._online.account.about(ref)

    def delete_account(self, ref: Ref = None) -> None:
        """Have the server forget us; an :class:`~sims.client.events.AccountDeleted` tells when it has. What is kept
        here stays; whoever connects with it again is somebody new there.

        :raises LocalError: ``unavailable``; ``policy``, when that is under way.
        """
        self._online.need()
        self._online.account.delete(ref)

    # --- what there is ------------------------------------------------------------------------------------------------

    def conversations(self) -> tuple[Contact, ...]:
        """Whom there is a conversation with."""
        return tuple(self._desk.people.contact(one.peer_id) for one in self._desk.talks.all() if not one.needs_bundle)

    @property
    def unsent(self) -> int:
        """How many texts the server has not accepted: what reads commands slows down by it."""
        return self._desk.outbox.texts_queued

    @property
    def under_way(self) -> int:
        """How much of what was asked for is not done: texts not accepted, questions not answered."""
        return self.unsent + self._online.under_way + self._meeting.under_way + self._reading.under_way

    def _found(self, to: str) -> tuple[str, str]:
        try:
            return self._desk.people.recipient(to, self.link.id)
        finally:
            self._desk.tell_changes()

    def _recipient(self, to: str) -> tuple[str, str]:
        person, name = self._found(to)
        if person == self.id or (not person and folded(name) == folded(self.name)):
            raise LocalError(Code.POLICY, "that is yourself")
        held = self._desk.people.get(person)
        if held is not None and held.changed_to:
            text = "the identity behind this name has changed; accept-identity takes the new one"
            raise LocalError(Code.POLICY, text)
        if person:
            self._desk.people.want(person)
        return person, name

    def _known(self, to: str) -> Person:
        person = self._desk.people.get(self._found(to)[0])
        if person is None:
            raise LocalError(Code.UNKNOWN_RECIPIENT, "nobody is known by that")
        return person
