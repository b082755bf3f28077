"""The user's end of sims/2: one hop to the server, a conversation for each person, and what is to be kept. No reactor.

Frames and commands in, frames and events out. What has changed is committed by :meth:`Messenger.settle` before any
frame or event that follows from it leaves; acknowledgements of what came are sent only then.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from msgspec import UNSET

from sims import inner, specs
from sims.client import events as told
from sims.client.desk import Desk, Ref
from sims.client.events import Contact, Delivery, Event, Ready
from sims.client.ledger import Ledger
from sims.client.lookups import Key, Lookups
from sims.client.meeting import Meeting
from sims.client.modern_hop import ModernHop, State
from sims.client.outbox import Outbox
from sims.client.people import People
from sims.client.profile import open_profile
from sims.client.publishing import Publishing
from sims.client.reading import Reading
from sims.client.store import Letter, Person, Store
from sims.client.talks import Talks
from sims.crypto.identity import PersonLink, PublicIdentity, ServerLink, safety_number
from sims.crypto.prekeys import OwnPrekeys
from sims.crypto.primitives import ModernEntropy, SystemEntropy
from sims.errors import Code, LocalError, PeerError
from sims.specs import ModernSpec

#: The longest text, bytes of its UTF-8: with what goes with it, it fits in the largest size of a content.
MAX_TEXT = 32_000
_DAY = 86_400


class Messenger:
    """One user of sims/2.

    :ivar link: the server; ``name``: what it calls us.
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
    ) -> None:
        """Go on from what is in a store, or begin.

        :param clock: seconds, never backwards; ``now``: Unix seconds.
        :param link: the server; needed the first time only.
        :param name: the name to be known by; needed the first time only.
        :param invite: asked for an invitation where the server has not taken us in yet.
        :raises LocalError: ``policy``: the store is of another server or name, or the first time something is missing.
        """
        saved = store.load()
        self._clock = clock
        self._now: Callable[[], int] = lambda: int(now())
        self._entropy = entropy or SystemEntropy()
        self._invite = invite
        self._ledger = Ledger(store)
        own = open_profile(saved.values, link, name, self._ledger, self._entropy)
        self.link, self.name, self._identity = own.link, own.name, own.identity
        self._invited = link.invite if link is not None else None
        self._epoch = own.epoch
        self._member = own.member
        self._outgoing: deque[bytes] = deque()  # inner messages that wait for the commit, or for the hop
        self._congested = False
        self._lists: deque[Ref] = deque()
        self._tidied = 0
        self.hop = ModernHop(self._identity, self.link, allowed, clock=clock, entropy=self._entropy)
        outbox = Outbox(saved.letters.values(), self._ledger)
        talks = Talks(
            self._identity,
            allowed,
            OwnPrekeys.load(saved.values["prekeys"]) if "prekeys" in saved.values else OwnPrekeys(),
            saved.conversations,
            outbox,
            self._ledger,
            now=self._now,
            entropy=self._entropy,
            post=self._post,
        )
        self._desk = Desk(
            self._identity.id,
            ledger=self._ledger,
            people=People(saved.people.values(), self._ledger),
            outbox=outbox,
            talks=talks,
            lookups=Lookups(self._send, clock=clock, random=self._entropy.octets),
        )
        self._publishing = Publishing(
            self._identity,
            allowed,
            talks,
            entropy=self._entropy,
            send=self._send,
            fetch_own=lambda: self._desk.lookups.want(Key("id", self.id)),
        )
        self._reading = Reading(self._desk, clock=clock, now=self._now, read_receipts=read_receipts)
        self._meeting = Meeting(self._desk, self._reading, self._publishing, self._now)

    def __repr__(self) -> str:
        return f"<messenger {self._identity.id} {self.hop.state.name.lower()}>"

    @property
    def id(self) -> str:
        """The own id."""
        return self._identity.id

    # --- the connection -----------------------------------------------------------------------------------------------

    @property
    def events(self) -> deque[Event]:
        """What happened, in order."""
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
        """How many messages wait for the server to take them."""
        return len(self._outgoing)

    def connected(self, binding: bytes) -> None:
        """A new connection to the server is there."""
        self._epoch += 1
        self._ledger.value("epoch", self._epoch.to_bytes(8, "big"))
        invite = None if self._member else (self._invite() or self._invited)
        self.hop.connected(self.name, binding, invite, self._epoch)

    def lost(self) -> None:
        """The connection is gone. What the server has not accepted is sent again on the next."""
        if self.hop.state is State.READY:
            self._desk.events.append(told.Offline())
        self.hop.lost()
        self._outgoing.clear()
        self._desk.acks.clear()
        self._lists.clear()
        self._congested = False
        self._desk.lookups.lost()
        self._publishing.lost()

    def receive(self, frame: bytes) -> None:
        """One frame from the server.

        :raises PeerError: the connection is to be closed; what is wrong with a message becomes an event instead.
        """
        was_ready = self.hop.state is State.READY
        try:
            plaintext = self.hop.receive(frame)
        except PeerError as error:
            if error.code is Code.INVITE_REQUIRED and self._member:
                # The server has lost its accounts: the next attempt brings an invitation, if there is one.
                self._forget_membership()
            raise
        if plaintext is not None:
            self._inner(inner.from_server(plaintext))
        elif not was_ready and self.hop.joined is not None:
            self._joined()

    def slowed(self, congested: bool) -> None:
        """The way to the server is behind, or has caught up."""
        self._congested = congested

    def settle(self) -> None:
        """Commit what has changed; then seal what waited for that.

        :raises LocalError: ``unavailable``: it cannot be committed, and nothing of it has left.
        """
        if self.hop.state is State.READY:
            self._publishing.tick(self._now())
        self._ledger.commit()
        if self.hop.state is not State.READY:
            return
        if self._desk.acks:
            for start in range(0, len(self._desk.acks), inner.MAX_MIDS):
                mids = tuple(self._desk.acks[start : start + inner.MAX_MIDS])
                self._outgoing.append(inner.encode(inner.Ack(data=inner.AckData(mids=mids))))
            self._desk.acks.clear()
        while self._outgoing and not self._congested:
            self.hop.seal(self._outgoing.popleft())

    def tick(self) -> float | None:
        """Do what is due; gives when to be called again."""
        times = [self._reading.tick()]
        if self.hop.state is State.READY:
            times.append(self._desk.lookups.tick())
            self.hop.rekey_if_due()
        if self._now() - self._tidied >= _DAY:
            self._tidied = self._now()
            self._tidy()
        due = [time for time in times if time is not None]
        return min(due, default=self._clock() + 60)

    def _forget_membership(self) -> None:
        self._member = False
        self._ledger.value("member", None)

    def _joined(self) -> None:
        joined = self.hop.joined
        if joined is None:
            return
        self._member = True
        self._ledger.value("member", b"1")
        if joined.name and joined.name != self.name:
            self.name = joined.name  # the server's word, as others see it
            self._ledger.value("name", self.name.encode("utf-8"))
        if joined.restored:
            self._epoch = max(self._epoch, joined.epoch or 0)
            self._ledger.value("epoch", self._epoch.to_bytes(8, "big"))
            self._desk.talks.restored()
        self._publishing.joined(self.name, self._now(), restored=joined.restored)
        for letter in self._desk.outbox.queued():
            if letter.inner is not None:
                self._outgoing.append(letter.inner)
            else:
                self._desk.forward(letter)
        self._desk.lookups.tick()
        self._desk.events.append(Ready(id=self.id, name=self.name, spec=joined.hop.spec.name))

    def _send(self, message: inner.Inner) -> None:
        self._outgoing.append(inner.encode(message))

    def _post(self, letter: Letter) -> None:
        if self.hop.state is State.READY and letter.inner is not None:
            self._outgoing.append(letter.inner)

    def acknowledge(self, mid: bytes) -> None:
        """What came under this mid is noted: tell the server, after the next commit."""
        self._desk.acks.append(mid)

    # --- commands -----------------------------------------------------------------------------------------------------

    def list(self, ref: Ref = None) -> None:
        """Ask who is here; the answer is a :class:`~sims.client.events.Listing`.

        :raises LocalError: ``unavailable``.
        """
        if self.hop.state is not State.READY:
            raise LocalError(Code.UNAVAILABLE, "not connected to the server")
        self._lists.append(ref)
        self._send(inner.ListRequest())

    def send(self, to: str, text: str, ref: Ref = None) -> None:
        """Send a text to an id, a name, or a link; what becomes of it is told in States.

        :raises LocalError: ``malformed``, ``too-large``, ``policy``.
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

        :raises LocalError: ``malformed``, ``policy``.
        """
        person, name = self._recipient(to)
        conversation = self._desk.talks.find(person) if person else None
        if conversation is not None and not conversation.needs_bundle and conversation.spec is not None:
            self._desk.connected(person, confirmed=conversation.confirmed, refs=(ref,))
            return
        self._meeting.open(Key("id", person) if person else Key("name", name), ref)

    def disconnect(self, to: str, ref: Ref = None) -> None:
        """Close a conversation.

        :raises LocalError: ``unknown-recipient``, when there is none.
        """
        person, _ = self._recipient(to)
        conversation = self._desk.talks.find(person) if person else None
        if conversation is None or conversation.needs_bundle:
            raise LocalError(Code.UNKNOWN_RECIPIENT, "there is no conversation to close")
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
        """Take the other id that the server gives for a name.

        :raises LocalError: ``unknown-recipient``; ``policy``, when there is nothing to take.
        """
        person = self._desk.people.accept(self._known(to))
        conversation = self._desk.talks.find(person.id)
        spec = "" if conversation is None or conversation.spec is None else conversation.spec.name
        contact = self._desk.people.contact(person.id)
        confirmed = conversation is not None and conversation.confirmed
        self._desk.events.append(told.Connected(peer=contact, spec=spec, verified=False, confirmed=confirmed, ref=ref))

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
        asked = len(self._lists) + self._meeting.under_way
        return self.unsent + asked + self._reading.under_way + len(self._outgoing)

    def leave(self) -> None:
        """The user leaves: what is gathered goes out."""
        self._reading.send_receipts()

    def _recipient(self, to: str) -> tuple[str, str]:
        try:
            person, name = self._desk.people.recipient(to, self.link.id)
        except PeerError as error:  # a link that is none
            raise LocalError(error.code, error.text) from None
        finally:
            self._desk.tell_changes()
        if person == self.id:
            raise LocalError(Code.POLICY, "that is your own id")
        held = self._desk.people.get(person)
        if held is not None and held.changed_to:
            raise LocalError(
                Code.POLICY, "the identity behind this name has changed; accept-identity takes the new one"
            )
        if len(name) > 128:
            raise LocalError(Code.UNKNOWN_RECIPIENT, "nobody has a name as long as that")
        return person, name

    def _known(self, to: str) -> Person:
        try:
            person_id, _ = self._desk.people.recipient(to, self.link.id)
        except PeerError as error:
            raise LocalError(error.code, error.text) from None
        person = self._desk.people.get(person_id)
        if person is None:
            raise LocalError(Code.UNKNOWN_RECIPIENT, "nobody is known by that")
        return person

    # --- letters -----------------------------------------------------------------------------------------------------

    def _accepted(self, mid: bytes) -> None:
        letter = self._desk.outbox.carried_by(mid)
        if letter is None:
            self._publishing.accepted(mid)
        elif letter.content is None and not letter.id:
            self._desk.outbox.drop(letter)  # a phase without a message
        else:
            self._desk.reached(letter, Delivery.ACCEPTED)

    def _tidy(self) -> None:
        self._desk.talks.expire()
        for letter in self._desk.outbox.expired(self._now()):
            if letter.id and letter.state in (Delivery.QUEUED, Delivery.ACCEPTED):
                self._desk.fail(letter, Code.UNAVAILABLE)
            else:
                self._desk.outbox.drop(letter)

    # --- what the server says -----------------------------------------------------------------------------------------

    def _inner(self, message: inner.FromServer) -> None:
        match message:
            case inner.ClientCom() | inner.ClientConnect():
                self._reading.take(message)
            case inner.Ack():
                for mid in message.data.mids:
                    self._accepted(mid)
            case inner.BundleReply():
                key = self._desk.lookups.answered(None if message.mid is UNSET else message.mid)
                if key is not None:
                    self._meeting.bundle(key, message.data)
            case inner.ListReply():
                clients = tuple(Contact(one.id, one.name) for one in message.data.clients)
                ref = self._lists.popleft() if self._lists else None
                self._desk.events.append(told.Listing(clients=clients, ref=ref))
            case inner.Error():
                self._error(message)
            case inner.AboutReply():
                pass

    def _error(self, message: inner.Error) -> None:
        data = message.data
        code = Code(data.code) if data.code in set(Code) else Code.UNAVAILABLE
        mid = data.mid if data.mid is not UNSET else message.mid
        letter = None if mid is UNSET else self._desk.outbox.carried_by(mid)
        if letter is not None:
            if letter.state is Delivery.QUEUED:
                person = self._desk.people.get(letter.to)
                if code is Code.UNKNOWN_RECIPIENT and person is not None and person.name:
                    self._desk.lookups.want(Key("name", person.name))  # somebody else may have it now
                self._desk.fail(letter, code)
            return
        if mid is not UNSET and self._publishing.refused(mid, code):
            return
        key = self._desk.lookups.answered(None if mid is UNSET else mid)
        if key is not None and code in (Code.UNKNOWN_RECIPIENT, Code.RATE_LIMITED, Code.UNAVAILABLE, Code.MALFORMED):
            self._meeting.no_bundle(key, code, None if data.after is UNSET else data.after)
            return
        self._desk.events.append(told.Problem(code=code, text="the server refuses something"))
