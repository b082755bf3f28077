"""The relay of sims/2: who is here, what they ask for, what they are told. Synchronous, without a reactor."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import inf
from typing import TypeVar

from msgspec import UNSET, Raw, UnsetType

from sims import inner
from sims.crypto import payloads, prekeys
from sims.crypto.handshake import Claim
from sims.crypto.prekeys import Bundle, OneTimeKey
from sims.errors import Code, PeerError
from sims.server.delivery import Delivery
from sims.server.desks import Reader as Member
from sims.server.interfaces import Account, Asked, Done, Facts, Letter, Published, Store
from sims.server.limits import Limits
from sims.server.names import prepare
from sims.server.rates import Buckets, whole_seconds
from sims.server.registration import Admitted, Mode, admit

T = TypeVar("T")

#: Bytes of a directory that fit in a box, with something to spare.
MAX_LIST = 60_000
#: Bytes of one entry besides the name; and so many entries are more than fit.
LISTED = 64
MAX_LISTED = MAX_LIST // LISTED
#: Bytes of a bundle.
MAX_BUNDLE = 8192
#: What an answer that may fill a box costs while nobody knows how long it is: one for each 4096 bytes.
LONG_REPLY = 16
#: Seconds for which nothing is read from one who has said something while the store has too much to do.
CROWDED = 1.0


class ModernRelay:
    """The members of one server.

    :param clock: seconds, never backwards; ``wall``: Unix seconds.
    :param directory: whether whoever asks is told who has an account here.
    :param invitation_spent: called when one is, after it was.
    """

    def __init__(
        self,
        store: Store,
        *,
        clock: Callable[[], float],
        wall: Callable[[], float],
        limits: Limits | None = None,
        mode: Mode = Mode.INVITE,
        directory: bool = False,
        invitation_spent: Callable[[], None] = lambda: None,
    ) -> None:
        self.limits = limits or Limits()
        self._store = store
        self._clock = clock
        self._wall = wall
        self._mode = mode
        self._directory = directory
        self._invitation_spent = invitation_spent
        #: Called when there is something for :meth:`flush` to tell.
        self.wake: Callable[[], None] = lambda: None
        self._members: dict[str, Member] = {}
        self._acks: dict[str, list[bytes]] = {}
        self._sends: Buckets[str] = Buckets(self.limits.sends)
        self._fetches: Buckets[str] = Buckets(self.limits.fetches)
        self._delivery = Delivery(
            store, self.limits, clock=clock, wall=wall, accepted=self._accepted, refused=self._message_refused
        )

    def __len__(self) -> int:
        return len(self._members)

    # --- who is here ---

    def admit(self, claim: Claim, done: Callable[[Admitted | Code], None]) -> None:
        """Whether somebody who has proved an identity is let in, as :func:`sims.server.registration.admit`."""

        def admitted(result: Admitted | Code) -> None:
            try:
                done(result)
            finally:
                if isinstance(result, Admitted) and result.invitation:
                    self._invitation_spent()

        admit(self._store, self._mode, claim, int(self._wall()), admitted)

    def join(self, member: Member) -> None:
        """Somebody who was admitted is here; an older connection of the same id is replaced."""
        older = self._members.get(member.id)
        if older is not None:
            self.leave(older)
            older.close(Code.REPLACED)
        self._members[member.id] = member
        self._delivery.join(member)

    def leave(self, member: Member) -> None:
        """Somebody is gone; again does no harm."""
        if self._is_here(member):
            del self._members[member.id]
            self._delivery.leave(member)

    def accounts_changed(self) -> None:
        """Somebody else may have deleted accounts: let those go who have none any more."""

        def known(accounts: Sequence[Account]) -> None:
            # Whoever is here by now was let in before this was answered, and so before it was asked.
            there = {account.id for account in accounts}
            for gone in [member for member in self._members.values() if member.id not in there]:
                self._account_gone(gone)

        self._store.everyone(known)

    def _account_gone(self, member: Member) -> None:
        self._delivery.forget(member.id)
        self.leave(member)
        member.close()

    # --- what they ask for ---

    def receive(self, member: Member, plaintext: bytes) -> float:
        """An inner message; gives the seconds for which nothing more should be read from this member.

        What is wrong with it is told, and the connection goes on.
        """
        pause = self._receive(member, plaintext)
        return max(pause, CROWDED) if self._store.crowded else pause

    def _receive(self, member: Member, plaintext: bytes) -> float:
        if not self._is_here(member):
            return self._spend(member)  # replaced, or its account deleted, with something still on the way
        common = inner.common(plaintext)
        if isinstance(common, inner.Ack):
            return self._acknowledge(member, common)
        # What has to be looked at value by value costs by its size, an acknowledgement too.
        cost = 1.0 + len(plaintext) // 4096
        if common is not None:
            self._send(member, common, plaintext)
            return self._spend(member)
        try:
            message = inner.from_client(plaintext)
        except PeerError as error:
            self._refuse(member, UNSET, error.code)
            return self._spend(member, cost)
        match message:
            case inner.Ack():
                self._delivery.acknowledge(member, message.data.mids)  # written as ours are not: it costs
            case inner.ClientCom() | inner.ClientConnect():
                self._send(member, message, inner.encode(message))
            case inner.Publish():
                self._publish(member, message)
                cost += len(message.data.one_time_keys) // 8  # each is verified
            case inner.Fetch():
                self._fetch(member, message)
            case inner.ListRequest():
                cost += LONG_REPLY
                self._list(member, message)
            case inner.AboutRequest():
                cost += LONG_REPLY
                self._store.facts(member.id, _asked(member, partial(self._about, member, message.mid)))
            case inner.Delete():
                self._delete(member, message)
        return self._spend(member, cost)

    def drained(self, member: Member) -> None:
        """A connection takes more again."""
        self._delivery.drained(member)

    # --- time ---

    @property
    def due(self) -> float | None:
        """When :meth:`tick` is to be called, on the clock."""
        return self._delivery.due

    def tick(self) -> None:
        """See whose time has come."""
        self._delivery.tick()

    def flush(self) -> None:
        """Tell senders what was accepted since this was last called."""
        gathered, self._acks = self._acks, {}
        for sender, mids in gathered.items():
            member = self._members.get(sender)
            if member is not None:
                for start in range(0, len(mids), inner.MAX_MIDS):
                    some = tuple(mids[start : start + inner.MAX_MIDS])
                    member.deliver(inner.encode(inner.Ack(data=inner.AckData(mids=some))))

    # --- messages ---

    def _acknowledge(self, member: Member, message: inner.Ack) -> float:
        # What somebody is given is not his doing, so an answer to it is free; any other is one more thing to look at.
        return 0.0 if self._delivery.acknowledge(member, message.data.mids) else self._spend(member)

    def _send(self, member: Member, message: inner.Relayed | inner.Com, encoded: bytes) -> None:
        if message.src != member.id:
            self._refuse(member, message.mid, Code.NOT_SENDER)
            return
        self._delivery.send(Letter(message.src, message.dst, message.mid, encoded))

    def _accepted(self, sender: str, mid: bytes) -> None:
        if not self._acks:
            self.wake()
        self._acks.setdefault(sender, []).append(mid)

    def _message_refused(self, sender: str, mid: bytes, code: Code) -> None:
        member = self._members.get(sender)
        if member is not None:
            self._refuse(member, mid, code)

    # --- prekeys ---

    def _publish(self, member: Member, message: inner.Publish) -> None:
        try:
            published, keys = self._checked(member.id, message.data)
        except PeerError as error:
            self._refuse(member, message.mid, error.code)
            return

        def done(kept: bool) -> None:
            if kept:
                self._accepted(member.id, message.mid)
            else:
                self._refuse(member, message.mid, Code.POLICY)

        self._store.publish(member.id, published, keys, _asked(member, done))

    def _checked(self, owner: str, data: inner.PublishData) -> tuple[Published, Sequence[bytes]]:
        bundle = payloads.decode(Bundle, bytes(data.bundle))
        prekeys.check_bundle(bundle, now=int(self._wall()), expected=owner)
        # Encoded anew: what stands beside the signed fields is nobody's, and would be kept and given to others.
        raw = payloads.encode(bundle)
        if len(raw) > MAX_BUNDLE:
            raise PeerError(Code.TOO_LARGE, f"a bundle of {len(raw)} bytes")
        keys = []
        for key in data.one_time_keys:
            decoded = payloads.decode(OneTimeKey, bytes(key))
            prekeys.check_one_time_key(decoded, bundle.identity)
            keys.append(payloads.encode(decoded))
        seen = prekeys.seen(bundle)
        return Published(seen.version, seen.digest, raw), keys

    def _fetch(self, member: Member, message: inner.Fetch) -> None:
        wait = self._fetches.of(member.id, self._clock()).try_take(self._clock())
        if wait:
            self._refuse(member, message.mid, Code.RATE_LIMITED, whole_seconds(wait))
            return
        mid = message.mid
        if message.data.id is not UNSET:
            self._fetch_of(member, mid, message.data.id)
        elif message.data.name is not UNSET:
            try:
                name = prepare(message.data.name)
            except PeerError:
                self._refuse(member, mid, Code.UNKNOWN_RECIPIENT)  # nobody has such a name
                return

            def found(account: Account | None) -> None:
                if account is None:
                    self._refuse(member, mid, Code.UNKNOWN_RECIPIENT)
                else:
                    self._fetch_of(member, mid, account.id)

            self._store.find_name(name, _asked(member, found))

    def _fetch_of(self, member: Member, mid: bytes, owner: str) -> None:
        def found(published: Published | None) -> None:
            if published is None:
                self._refuse(member, mid, Code.UNKNOWN_RECIPIENT)
            elif owner == member.id:
                taken(published, None)  # one's own one-time keys are for others
            elif self._is_here(member):  # or else nobody would get the key
                self._store.take(owner, member.id, int(self._wall()), _asked(member, partial(taken, published)))

        def taken(published: Published, key: bytes | None) -> None:
            data = inner.BundleData(bundle=Raw(published.raw), one_time_key=UNSET if key is None else Raw(key))
            member.deliver(inner.encode(inner.BundleReply(mid=mid, data=data)))

        self._store.bundle(owner, _asked(member, found))

    # --- the rest ---

    def _list(self, member: Member, message: inner.ListRequest) -> None:
        def reply(accounts: Sequence[Account]) -> None:
            listed: list[inner.Listed] = []
            size = 0
            for account in accounts:
                entry = inner.Listed(id=account.id, name=account.name, online=account.id in self._members)
                size += len(account.name.encode("utf-8")) + LISTED
                if size > MAX_LIST:
                    break
                listed.append(entry)
            data = inner.ListData(clients=tuple(listed))
            self._reply(member, inner.encode(inner.ListReply(mid=message.mid, data=data)))

        if self._directory:
            self._store.everyone(_asked(member, reply), MAX_LISTED)
        else:
            reply(())

    def _about(self, member: Member, mid: bytes | UnsetType, facts: Facts) -> None:
        self._reply(member, inner.encode(inner.AboutReply(mid=mid, data=inner.AboutData(facts=facts))))

    def _reply(self, member: Member, reply: bytes) -> None:
        """Answer what cost as much as the longest answer: it costs as much as this one."""
        member.deliver(reply)
        self._spend(member, len(reply) // 4096 - LONG_REPLY)

    def _delete(self, member: Member, message: inner.Delete) -> None:
        def done(_: None) -> None:
            # Whoever came with the same identity meanwhile was let in to the account that there was.
            later = self._members.get(member.id)
            if later is not None and later is not member:
                self._account_gone(later)
            member.deliver(inner.encode(inner.Ack(data=inner.AckData(mids=(message.mid,)))))
            self._account_gone(member)

        # Whoever still sends to this account learns that there is none; so it leaves after the account has gone.
        self._store.delete(member.id, _asked(member, done))
        self.leave(member)

    def _refuse(self, member: Member, mid: bytes | UnsetType, code: Code, after: int | UnsetType = UNSET) -> None:
        data = inner.ErrorData(code=code.value, mid=mid, after=after)
        member.deliver(inner.encode(inner.Error(mid=mid, data=data)))

    def _is_here(self, member: Member) -> bool:
        return self._members.get(member.id) is member

    @property
    def pause(self) -> float:
        """Seconds for which nothing is read from whoever was to be read again; 0.0 as a rule."""
        return CROWDED if self._store.crowded else 0.0

    def charge(self, member: Member, cost: float) -> float:
        """What a member has done besides is taken from its sends; gives the seconds for which nothing more is read."""
        pause = self._spend(member, cost)
        return max(pause, CROWDED) if self._store.crowded else pause

    def _spend(self, member: Member, cost: float = 1.0) -> float:
        if self.limits.sends.second == inf:
            return 0.0
        now = self._clock()
        return self._sends.of(member.id, now).take(now, cost)


def _asked(member: Member, done: Done[T]) -> Asked[T]:
    """What a member has asked the store for. Where there can be no answer the connection ends; another may begin."""
    return Asked(done, partial(member.close, Code.INTERNAL))
