"""The store, in memory: for tests, and for a server that keeps nothing over a restart."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import islice

from sims.server.interfaces import (
    Account,
    Done,
    Facts,
    Invitation,
    Kept,
    Letter,
    Published,
    Quota,
    Registered,
)

DAY = 86_400
MAX_ONE_TIME_KEYS = 100
#: So many of those handed out are remembered, so that none is taken a second time.
MAX_SPENT = 1000
#: So many ids of each list of facts are told: five of these lists fit in a box.
MAX_FACTS = 300
#: So many mids are remembered of one mailbox, the newest.
MAX_MIDS = 50_000
#: So many spent invitations are remembered, the newest.
MAX_SPENT_INVITATIONS = 10_000


@dataclass
class _Box:
    """One person's mailbox; ``letters`` by src and mid, oldest first."""

    letters: OrderedDict[tuple[str, bytes], tuple[int, int, Letter]] = field(default_factory=OrderedDict)
    size: int = 0
    senders: dict[str, tuple[int, int]] = field(default_factory=dict)  # id -> messages, bytes
    #: src and mid -> when it was accepted, oldest first.
    mids: OrderedDict[tuple[str, bytes], int] = field(default_factory=OrderedDict)
    friends: dict[str, None] = field(default_factory=dict)  # whom the owner has written to

    def add(self, number: int, now: int, letter: Letter) -> None:
        key = (letter.src, letter.mid)
        self.letters[key] = (number, now, letter)
        self.mids[key] = now
        if len(self.mids) > MAX_MIDS:
            self.mids.popitem(last=False)  # the recipient's client knows them, too
        self._count(letter, 1)

    def remove(self, key: tuple[str, bytes]) -> None:
        found = self.letters.pop(key, None)
        if found is not None:
            self._count(found[2], -1)

    def _count(self, letter: Letter, sign: int) -> None:
        messages, size = self.senders.get(letter.src, (0, 0))
        self.size += sign * len(letter.inner)
        if messages + sign:
            self.senders[letter.src] = messages + sign, size + sign * len(letter.inner)
        else:
            del self.senders[letter.src]

    def expire(self, before: float) -> None:
        while self.letters:
            key, (_, since, _) = next(iter(self.letters.items()))
            if since > before:
                break
            self.remove(key)
        while self.mids and next(iter(self.mids.values())) <= before:
            self.mids.popitem(last=False)

    def has_room(self, letter: Letter, quota: Quota) -> bool:
        size = len(letter.inner)
        messages, taken = self.senders.get(letter.src, (0, 0))
        bounds = [
            (len(self.letters), self.size, quota.messages, quota.size),
            (messages, taken, quota.sender_messages, quota.sender_size),
        ]
        if letter.src not in self.friends:
            bounds.append((messages, taken, quota.stranger_messages, quota.stranger_size))
        return all(count + 1 <= most and total + size <= largest for count, total, most, largest in bounds)


@dataclass
class _Keys:
    """One person's prekeys."""

    bundle: Published
    one_time: OrderedDict[bytes, bytes] = field(default_factory=OrderedDict)  # digest -> raw, oldest first
    spent: OrderedDict[bytes, None] = field(default_factory=OrderedDict)
    fetchers: OrderedDict[str, int] = field(default_factory=OrderedDict)  # id -> when, oldest first


class MemoryStore:
    """As :class:`~sims.server.interfaces.Store`; everything is done before a call returns."""

    crowded = False

    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}
        self._names: dict[str, str] = {}
        self._invitations: OrderedDict[bytes, Invitation] = OrderedDict()  # by hash, oldest first
        self._spent: OrderedDict[bytes, None] = OrderedDict()
        self._keys: dict[str, _Keys] = {}
        self._boxes: dict[str, _Box] = {}
        self._number = 0

    # --- accounts and invitations ---

    def find(self, account: str, done: Done[Account | None]) -> None:
        done(self._accounts.get(account))

    def find_name(self, name: str, done: Done[Account | None]) -> None:
        done(self._accounts.get(self._names.get(name, "")))

    def invite(self, invitation: bytes, done: Done[None], *, uses: int = 1, expires: int | None = None) -> None:
        self._spent.pop(invitation, None)
        self._invitations.pop(invitation, None)
        self._invitations[invitation] = Invitation(invitation, uses, expires)
        done(None)

    def invitation(self, invitation: bytes, done: Done[Invitation | None]) -> None:
        done(Invitation(invitation, 0) if invitation in self._spent else self._invitations.get(invitation))

    def register(self, account: Account, invitation: bytes | None, done: Done[Registered]) -> None:
        done(self._register(account, invitation))

    def _register(self, account: Account, invitation: bytes | None) -> Registered:
        if account.id in self._accounts:
            return Registered.KNOWN
        if invitation is not None:
            self._expire_invitations(account.created)
            if invitation in self._spent:
                return Registered.INVITE_USED
            if invitation not in self._invitations:
                return Registered.INVITE_REQUIRED
        if account.name in self._names:
            return Registered.NAME_TAKEN
        if invitation is not None:
            self._spend(invitation)
        self._accounts[account.id] = account
        self._names[account.name] = account.id
        self._boxes[account.id] = _Box()
        return Registered.DONE

    def _expire_invitations(self, now: int) -> None:
        for found in [*self._invitations.values()]:
            if found.expires is not None and found.expires <= now:
                del self._invitations[found.hash]

    def _spend(self, invitation: bytes) -> None:
        found = self._invitations[invitation]
        if found.uses > 1:
            self._invitations[invitation] = found._replace(uses=found.uses - 1)
            return
        del self._invitations[invitation]
        self._spent[invitation] = None
        if len(self._spent) > MAX_SPENT_INVITATIONS:
            self._spent.popitem(last=False)

    def connected(self, account: str, epoch: int | None, done: Done[Account | None]) -> None:
        found = self._accounts.get(account)
        if found is not None and epoch is not None:
            highest = epoch if found.epoch is None else max(epoch, found.epoch)
            self._accounts[account] = found._replace(epoch=highest)
        done(found)

    def everyone(self, done: Done[Sequence[Account]], most: int | None = None) -> None:
        done([self._accounts[self._names[name]] for name in sorted(self._names)[:most]])

    def delete(self, account: str, done: Done[None]) -> None:
        found = self._accounts.pop(account, None)
        if found is not None:
            del self._names[found.name]
            del self._boxes[account]
            self._keys.pop(account, None)
            for keys in self._keys.values():
                keys.fetchers.pop(account, None)
            for box in self._boxes.values():
                box.friends.pop(account, None)
        done(None)

    # --- prekeys ---

    def bundle(self, owner: str, done: Done[Published | None]) -> None:
        found = self._keys.get(owner)
        done(None if found is None else found.bundle)

    def publish(self, owner: str, bundle: Published, one_time_keys: Sequence[bytes], done: Done[bool]) -> None:
        done(owner in self._accounts and self._publish(owner, bundle, one_time_keys))

    def _publish(self, owner: str, bundle: Published, one_time_keys: Sequence[bytes]) -> bool:
        keys = self._keys.get(owner)
        if keys is None:
            keys = self._keys[owner] = _Keys(bundle)
        elif not bundle.may_follow(keys.bundle):
            return False
        keys.bundle = bundle
        for raw in one_time_keys:
            digest = sha256(raw).digest()
            if digest not in keys.spent:
                keys.one_time.setdefault(digest, raw)
        while len(keys.one_time) > MAX_ONE_TIME_KEYS:
            keys.one_time.popitem(last=False)
        return True

    def take(self, owner: str, fetcher: str, now: int, done: Done[bytes | None]) -> None:
        done(self._take(owner, fetcher, now))

    def _take(self, owner: str, fetcher: str, now: int) -> bytes | None:
        keys = self._keys.get(owner)
        if keys is None:
            return None
        while keys.fetchers and next(iter(keys.fetchers.values())) <= now - DAY:
            keys.fetchers.popitem(last=False)
        if not keys.one_time or fetcher in keys.fetchers:
            return None
        digest, raw = keys.one_time.popitem(last=False)
        keys.spent[digest] = None
        if len(keys.spent) > MAX_SPENT:
            keys.spent.popitem(last=False)
        keys.fetchers[fetcher] = now
        return raw

    # --- mailboxes ---

    def keep(self, letter: Letter, quota: Quota, now: int, done: Done[Kept]) -> None:
        done(self._keep(letter, quota, now))

    def _keep(self, letter: Letter, quota: Quota, now: int) -> Kept:
        box = self._boxes.get(letter.dst)
        if box is None:
            return Kept.NOBODY
        box.expire(now - quota.life)
        if (letter.src, letter.mid) in box.mids:
            return Kept.KNOWN
        if not box.has_room(letter, quota):
            return Kept.FULL
        self._number += 1
        box.add(self._number, now, letter)
        return Kept.STORED

    def waiting(
        self, owner: str, after: int, most: int, since: float, done: Done[Sequence[tuple[int, Letter]]]
    ) -> None:
        box = self._boxes.get(owner)
        if box is not None:
            box.expire(since)
        newer = (item for item in box.letters.values() if item[0] > after) if box is not None else iter(())
        done([(number, letter) for number, _, letter in islice(newer, most)])

    def acknowledge(self, owner: str, letters: Sequence[tuple[str, bytes]], done: Done[None]) -> None:
        box = self._boxes.get(owner)
        if box is not None:
            for key in letters:
                box.remove(key)
        done(None)

    def written(self, owner: str, to: str, done: Done[None]) -> None:
        box = self._boxes.get(owner)
        if box is not None and to in self._accounts:
            box.friends[to] = None
        done(None)

    # --- all of it ---

    def facts(self, account: str, done: Done[Facts]) -> None:
        done(self._facts(account))

    def _facts(self, account: str) -> Facts:
        found = self._accounts.get(account)
        if found is None:
            return {}
        box, keys = self._boxes[account], self._keys.get(account)
        facts: Facts = dict(found._asdict())
        if keys is not None:
            facts |= {
                "bundle": keys.bundle.raw,
                "one_time_keys": len(keys.one_time),
                "one_time_keys_handed_out": len(keys.spent),
                "fetched_by": _some(keys.fetchers),
                "fetched_by_count": len(keys.fetchers),
            }
        facts |= {
            "waiting_messages": len(box.letters),
            "waiting_bytes": box.size,
            "waiting_from": _some(box.senders),
            "waiting_from_count": len(box.senders),
            "remembered_mids": len(box.mids),
            "written_to": _some(box.friends),
            "written_to_count": len(box.friends),
            "written_by": _some(owner for owner, other in self._boxes.items() if account in other.friends),
            "fetched_from": _some(owner for owner, other in self._keys.items() if account in other.fetchers),
            "sent_and_waiting": sum(other.senders.get(account, (0, 0))[0] for other in self._boxes.values()),
        }
        return facts

    def close(self, done: Done[None]) -> None:
        done(None)


def _some(ids: Iterable[str]) -> list[str]:
    return list(ids)[-MAX_FACTS:]
