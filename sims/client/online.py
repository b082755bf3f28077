"""The server's side of the user's end: connect again and again, what goes over the hop, what the server says."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from msgspec import UNSET

from sims import inner
from sims.client import events
from sims.client.account import Account
from sims.client.desk import Desk, Ref
from sims.client.events import Contact, Delivery, Ready
from sims.client.holds import Holds
from sims.client.meeting import Meeting
from sims.client.modern_hop import ModernHop, State
from sims.client.profile import Profile
from sims.client.publishing import Publishing
from sims.client.reading import Reading
from sims.client.store import Letter
from sims.errors import Code, LocalError, PeerError, malformed
from sims.frames import MAX_FRAME

#: Refusals of a message that say nothing about the next attempt.
_FOR_NOW = frozenset({Code.RATE_LIMITED, Code.UNAVAILABLE, Code.INTERNAL})
#: An invitation that somebody else was quicker to use is looked for again so many times.
INVITE_ATTEMPTS = 5
#: The mailbox counts as empty when nothing came for so many seconds.
QUIET = 30.0
#: The server's word on epochs counts up to here, so that ours can still be raised.
_MOST_EPOCH = 2**62
#: Who is new waits so many seconds, until others can find him, before he is told that he is there.
FOUND_TIMEOUT = 2.0
_DAY = 86_400
_INVITES = frozenset({Code.INVITE_REQUIRED, Code.INVITE_USED})


class Online:
    """One connection after the other.

    :param invite: where to look for an invitation; ``invited``: one that is given.
    :ivar name: what the server calls us.
    :ivar emptied: when the mailbox was last found empty, Unix seconds.
    :ivar may_retry: whether the refusal of connect that came last may be over with the next attempt.
    """

    def __init__(
        self,
        desk: Desk,
        hop: ModernHop,
        profile: Profile,
        *,
        clock: Callable[[], float],
        now: Callable[[], int],
        invite: Callable[[], str | None],
        invited: str | None,
        random: Callable[[int], bytes],
    ) -> None:
        self.hop = hop
        self.name = profile.name
        self.may_retry = False
        self._desk = desk
        self._ledger = desk.ledger
        self._clock = clock
        self._now = now
        self._invite = invite
        self._invited = invited
        self._epoch = profile.epoch
        self._brought: str | None = None  # the invitation of the present attempt
        self._attempts = 0
        # Inner messages that wait for the commit, or for the hop, with their letters and mids; and how many have none.
        self._outgoing: deque[tuple[bytes, Letter | None, bytes]] = deque()
        self._unkept = 0
        self._holds = Holds(clock)
        self._before = 0  # letters of no text that were queued when this connection began
        self._congested = False
        self._announced = False
        self._announce_at: float | None = None
        self._lists: deque[Ref] = deque()
        self._room = 0
        self._heard_at = 0.0
        self.emptied = profile.emptied
        self.account = Account(desk, self.send, random, is_member=profile.member)
        self.reading: Reading
        self.meeting: Meeting
        self.publishing: Publishing

    def __repr__(self) -> str:
        return f"<{self.hop!r}>"

    # --- the connection -----------------------------------------------------------------------------------------------

    @property
    def is_ready(self) -> bool:
        """Whether the server takes messages."""
        return self.hop.state is State.READY

    @property
    def waiting(self) -> int:
        """How much this connection has caused that the server has not taken."""
        if not self.is_ready:
            return 0
        return self._unkept + max(0, self._desk.outbox.others_queued - self._before)

    @property
    def under_way(self) -> int:
        """How much waits for the server."""
        return len(self._lists) + len(self._outgoing) + len(self.account)

    def connected(self, binding: bytes) -> None:
        """A new connection to the server is there."""
        self._epoch += 1
        self._ledger.value("epoch", self._epoch.to_bytes(8, "big"))
        self._brought = None if self.account.is_member else (self._invite() or self._invited)
        self.hop.connected(self.name, binding, self._brought, self._epoch)

    def lost(self) -> None:
        """The connection is gone. What the server has not accepted is sent again on the next."""
        self._announce_at = None
        if self._announced:
            self._announced = False
            self._desk.events.append(events.Offline())
        self.hop.lost()
        self._clear()
        self._holds.clear()
        self._desk.acks.clear()
        self._desk.acks_later.clear()
        self._congested = False
        lists, self._lists = self._lists, deque()
        for ref in lists:
            self._desk.problem(Code.UNAVAILABLE, "the connection was lost before the answer came", ref)
        self.account.lost()
        self._desk.lookups.lost()
        self.publishing.lost()

    def receive(self, frame: bytes) -> None:
        """One frame from the server.

        :raises PeerError: the connection is to be closed; what is wrong with a message becomes an event instead.
        :raises LocalError: ``unavailable``: the store cannot be asked; likewise.
        """
        was_ready = self.is_ready
        self.may_retry = False
        try:
            plaintext = self.hop.receive(frame)
            if plaintext is not None:
                self._inner(inner.from_server(plaintext))
            elif not was_ready and self.hop.joined is not None:
                self._joined()
        except (PeerError, LocalError) as error:
            self.hop.lost()  # nothing goes out behind it
            self._clear()
            if not was_ready:
                self.account.shut_out(error.code)
                if error.code in _INVITES:
                    self._not_invited()
            raise

    def _clear(self) -> None:
        self._outgoing.clear()
        self._unkept = 0

    def _not_invited(self) -> None:
        """Look whether there is another invitation for the next attempt."""
        self.account.not_member()  # the server has lost its accounts
        self._attempts += 1
        found = self._invite()
        # A server on this machine soon writes a new one in the place of one that is used.
        fresh = found is not None and (found != self._brought or self._attempts < INVITE_ATTEMPTS)
        given = self._brought is None and self._invited is not None
        self.may_retry = self._attempts <= INVITE_ATTEMPTS and (fresh or given)

    def _joined(self) -> None:
        joined, desk = self.hop.joined, self._desk
        if joined is None:
            return
        if not 1 <= len(joined.name) <= 128 or not joined.name.isprintable():
            raise malformed("the server calls us by what can be no name")
        self._attempts = 0
        self.account.taken_in()
        if joined.name != self.name:
            self.name = joined.name  # the server's word, as others see it
            self._ledger.value("name", self.name.encode("utf-8"))
        if joined.restored:
            self._epoch = max(self._epoch, min(joined.epoch or 0, _MOST_EPOCH))
            self._ledger.value("epoch", self._epoch.to_bytes(8, "big"))
            desk.talks.restored()
            for conversation in desk.talks.all():
                desk.renew(conversation.peer_id)
        self._room = room(joined.limits.frame)
        self._heard_at = self._clock()
        self._before = desk.outbox.others_queued
        self.publishing.joined(
            self.name,
            self._now(),
            restored=joined.restored,
            unknown=joined.epoch is None,
            # A bundle, and so many one-time keys, with what stands around them.
            most=max(0, (self._room - 3000) // 1350),
        )
        self.account.joined()
        for letter in desk.outbox.queued():
            self.post(letter)
        for letter in desk.outbox.waiting():
            desk.forward(letter)
        self._announce_at = self._clock() + FOUND_TIMEOUT
        self._announce()

    def _announce(self) -> None:
        """Tell that we are there: when the server has our keys, so that others can find us."""
        due, joined = self._announce_at, self.hop.joined
        if due is not None and joined is not None and (due <= self._clock() or not self.publishing.is_out):
            self._announce_at, self._announced = None, True
            self._desk.events.append(Ready(id=self._desk.id, name=self.name, spec=joined.hop.spec.name))

    # --- what goes out ------------------------------------------------------------------------------------------------

    def send(self, message: inner.Inner) -> None:
        """Send something that is not kept: it is lost with the connection."""
        if self.is_ready:
            self._outgoing.append((inner.encode(message), None, b""))
            self._unkept += 1

    def post(self, letter: Letter) -> None:
        """Send a letter that is sealed; again on every connection, until the server has accepted it.

        While nothing may be written to its recipient, nothing happens: it goes with all that waits for them, in order.
        """
        if not self.is_ready or letter.inner is None or self._holds.is_under_way(letter) or self._holds.stop(letter):
            return
        if len(letter.inner) > self._room:
            self._desk.fail(letter, Code.TOO_LARGE)  # the server's limit is lower than the format's
            return
        self._holds.sent(letter)
        self._outgoing.append((letter.inner, letter, letter.mid))

    def need(self) -> None:
        """Something is to be asked that only the server knows.

        :raises LocalError: ``unavailable``.
        """
        if not self.is_ready:
            raise LocalError(Code.UNAVAILABLE, "not connected to the server")

    def list(self, ref: Ref) -> None:
        """Ask who is here.

        :raises LocalError: ``unavailable``.
        """
        self.need()
        self._lists.append(ref)
        self.send(inner.ListRequest())

    def slowed(self, congested: bool) -> None:
        """The way to the server is behind, or has caught up."""
        self._congested = congested

    def flush(self) -> None:
        """Seal what waits; to be called after a commit."""
        if not self.is_ready:
            return
        acks, self._desk.acks = self._desk.acks, []
        for start in range(0, len(acks), inner.MAX_MIDS):
            self.send(inner.Ack(data=inner.AckData(mids=tuple(acks[start : start + inner.MAX_MIDS]))))
        while self._outgoing and not self._congested:
            message, letter, mid = self._outgoing.popleft()
            self._unkept -= letter is None
            if letter is not None and self._desk.outbox.carried_by(mid) is not letter:
                self._holds.answered(mid)  # it has failed before it left
                continue
            self.hop.seal(message)

    def tick(self) -> float | None:
        """Do what is due; gives when to be called again."""
        if not self.is_ready:
            return None
        now = self._clock()
        self._post_again()
        self._announce()
        self.publishing.tick(self._now())
        self.hop.rekey_if_due()
        quiet = self._heard_at + QUIET if self._now() - self.emptied >= _DAY else None
        if quiet is not None and quiet <= now:
            quiet, self.emptied = None, self._now()
            self._ledger.value("emptied", self.emptied.to_bytes(8, "big"))
        asks = self.reading.asking.tick()
        found = self._desk.lookups.tick()
        times = (None if asks is None else now + asks, self._announce_at, found, self._holds.due, quiet)
        return min((when for when in times if when is not None), default=None)

    def _post_again(self) -> None:
        """Send what waits for people whose time has come, in order."""
        free = self._holds.free()
        waiting = [letter for letter in self._desk.outbox.queued() if letter.to in free] if free else []
        for letter in waiting:
            self.post(letter)
        for person in free.difference(letter.to for letter in waiting):
            self._holds.accept(person)

    # --- what the server says -----------------------------------------------------------------------------------------

    def _inner(self, message: inner.FromServer) -> None:
        match message:
            case inner.ClientCom() | inner.ClientConnect():
                self._heard_at = self._clock()
                self.reading.take(message)
            case inner.Ack():
                for mid in message.data.mids:
                    self._accepted(mid)
            case inner.BundleReply():
                key = self._desk.lookups.answered(None if message.mid is UNSET else message.mid)
                if key is not None:
                    self.meeting.bundle(key, message.data)
            case inner.ListReply():
                clients = tuple(Contact(one.id, one.name) for one in message.data.clients)
                ref = self._lists.popleft() if self._lists else None
                self._desk.events.append(events.Listing(clients=clients, ref=ref))
            case inner.Error():
                self._error(message)
            case inner.AboutReply():
                self.account.told(message)

    def _accepted(self, mid: bytes) -> None:
        letter = self._desk.outbox.carried_by(mid)
        self._holds.answered(mid)
        if letter is None:
            if self.account.deleted(mid):
                self._announced = False
            elif not self._desk.accepted_before(mid):
                self.publishing.accepted(mid)
            return
        self._holds.accept(letter.to)
        with self._ledger.lazily():  # or else it is sent once more, and accepted again
            if letter.content is None and not letter.id:
                self._desk.drop(letter)  # a phase without a message
            else:
                self._desk.reached(letter, Delivery.ACCEPTED, self._now())

    def _error(self, message: inner.Error) -> None:
        data = message.data
        code = Code(data.code) if data.code in set(Code) else Code.UNAVAILABLE
        mid = data.mid if data.mid is not UNSET else message.mid
        after = None if data.after is UNSET else float(data.after)
        if mid is UNSET:
            if code in (Code.REPLACED, Code.REKEY_REQUIRED):
                raise PeerError(code, _CLOSING[code])
            self._desk.problem(code, "the server refuses something")
            return
        was_letter = self._holds.answered(mid)
        letter = self._desk.outbox.carried_by(mid)
        if letter is not None:
            self._refused(letter, code, after)
            return
        if was_letter or self.account.refused(mid, code) or self.publishing.refused(mid, code):
            return  # something else carries that letter now, or nothing any more
        key = self._desk.lookups.answered(mid)
        if key is not None:
            self.meeting.no_bundle(key, code, after)
        else:
            self._desk.problem(code, "the server refuses something")

    def _refused(self, letter: Letter, code: Code, after: float | None) -> None:
        """The server does not take a letter."""
        if not letter.is_due:
            return
        waits = self._holds.is_unanswered(self._desk.outbox.before(letter))
        full = code is Code.MAILBOX_FULL and (letter.is_quiet or waits)
        if full or code in _FOR_NOW:
            # What nobody has asked for is not reported as failed, and the other end waits for it.
            held = self._holds.stop(letter)
            self._holds.refuse(letter, after, texts=waits or not full)
            if not held:
                self._take_back()
            return
        self._desk.fail(letter, code)
        if code is Code.UNKNOWN_RECIPIENT:
            self.meeting.gone(letter.to)

    def _take_back(self) -> None:
        """What has not left yet, and may not be written any more, is not."""
        outgoing, self._outgoing = self._outgoing, deque()
        for message, letter, mid in outgoing:
            if letter is not None and self._holds.stop(letter):
                self._holds.answered(mid)
            else:
                self._outgoing.append((message, letter, mid))


_CLOSING = {
    Code.REPLACED: "another client with this identity has connected",
    Code.REKEY_REQUIRED: "the server wants new keys for this connection",
}


def room(limit: object) -> int:
    """How many bytes of an inner message fit in a frame of so many: base64, padding, and what stands around it."""
    frame = min(limit, MAX_FRAME) if isinstance(limit, int) else MAX_FRAME
    return min(max(0, ((frame - 128) // 4 * 3 - 16) // 512 * 512 - 1), 65_535)
