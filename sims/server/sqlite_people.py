"""The server's tables about people, synchronously: accounts, invitations, bundles and one-time keys.

What must be forgotten must be gone from the file, and SQLite alone does not see to that: ``secure_delete`` writes over
what is deleted, but when it moves rows from page to page, which it does to fill them, a copy may be left in the part of
a page that is not in use. So what is to be forgotten while its table lives on is masked with a key of its own, which
stands in a table whose rows are never moved: they come in at the end, and are written over in their place
(docs/decisions/0013-what-the-server-forgets.rst).

In the tables a person is a number, which is never another's. Whoever has no account any more, but has sent what others
have not fetched yet, stands in ``departed`` for as long as that may be.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from hashlib import sha256
from typing import Any, NamedTuple

from sims.crypto.primitives import aes_stream
from sims.server.interfaces import Account, Invitation, Published, Registered
from sims.server.memory import DAY, MAX_ONE_TIME_KEYS, MAX_SPENT, MAX_SPENT_INVITATIONS

#: So many people's numbers are remembered.
MAX_PEOPLE = 50_000
KEY_SIZE = 32
#: What stands where a key was.
GONE = bytes(KEY_SIZE)

_START = bytes(16)

_ACCOUNT = "select id, name, sign, dh, created, epoch from accounts"


class Person(NamedTuple):
    """The numbers of an id: of its account, and those under which it may have sent something before."""

    account: int | None
    before: tuple[int, ...]


class PeopleTables:
    """A connection, and what is known of what is behind it.

    Everything but :meth:`look` belongs into a :meth:`transaction`, or a :meth:`reading`; ``sqlite3.Error`` is raised
    where that fails, and the transaction is then rolled back.

    :ivar foreign: how often something was found that another process had changed.
    :ivar stale: whether rows that were deleted may have left something in the file.
    """

    def __init__(self, connection: sqlite3.Connection, entropy: Callable[[int], bytes] = os.urandom) -> None:
        self.connection = connection
        self.stale = True  # nobody knows what was deleted before
        self._entropy = entropy
        self._random = b""
        self._run = connection.execute
        self.foreign = 0
        self._people: dict[str, Person] = {}
        (self._version,) = self._run("pragma data_version").fetchone()
        #: The number of the newest letter. It never goes down while the process lives, whatever is deleted.
        self._newest = self._highest()

    # --- transactions ---

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is done within, or nothing."""
        self._run("begin immediate")
        try:
            self.look()
            self.begun()
            yield
            self.flush()
            self._run("commit")
        except BaseException:
            self.forget()
            if self.connection.in_transaction:
                self._run("rollback")
            raise

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What is read within is all of one moment, and nobody is kept from writing. Nothing may be changed within."""
        self._run("begin")
        try:
            self.look()
            yield
        finally:
            self.forget()
            if self.connection.in_transaction:
                self._run("rollback")

    def look(self) -> bool:
        """Whether another process has changed something since the last look; what was known is forgotten then."""
        (version,) = self._run("pragma data_version").fetchone()
        if version == self._version:
            return False
        highest = self._highest()  # this may fail: then it is still to be seen that something has changed
        self._version = version
        self.foreign += 1
        self._newest = max(self._newest, highest)
        self.stale = True
        self.forget()
        return True

    def _highest(self) -> int:
        """The highest number that a letter has had, as far as it matters: keys stay when letters have left."""
        found = self._run(
            "select max(ifnull((select max(number) from letters), 0), ifnull((select max(number) from keys), 0),"
            " ifnull((select max(last) from departed), 0))"
        ).fetchone()
        return int(found[0])

    def forget(self) -> None:
        """Forget what is known of the tables: they may be otherwise by now."""
        self._people.clear()

    def begun(self) -> None:
        """A transaction has begun."""

    def flush(self) -> None:
        """Write what was put off."""

    # --- who is who ---

    def _person(self, id: str) -> Person:
        found = self._people.get(id)
        if found is None:
            account = self._run("select number from accounts where id = ?", (id,)).fetchone()
            before = self._run("select number from departed where id = ? order by number", (id,)).fetchall()
            if len(self._people) >= MAX_PEOPLE:
                self._people.clear()
            found = Person(account[0] if account else None, tuple(number for (number,) in before))
            self._people[id] = found
        return found

    def _new_number(self) -> int:
        (number,) = self._run(
            "select max(ifnull((select max(number) from accounts), 0), ifnull((select max(number) from departed), 0))"
        ).fetchone()
        return int(number) + 1

    def _number_of(self, id: str) -> int | None:
        return self._person(id).account

    # --- accounts ---

    def find(self, account: str) -> Account | None:
        """As :class:`~sims.server.interfaces.Accounts` says, and so all that follow."""
        return _account(self._run(f"{_ACCOUNT} where id = ?", (account,)).fetchone())

    def find_name(self, name: str) -> Account | None:
        """The account of a name."""
        return _account(self._run(f"{_ACCOUNT} where name = ?", (name,)).fetchone())

    def everyone(self, most: int | None = None) -> list[Account]:
        """All accounts, by name, or the first."""
        rows = self._run(f"{_ACCOUNT} order by name limit ?", (-1 if most is None else most,))
        return [found for row in rows if (found := _account(row)) is not None]

    def register(self, account: Account, invitation: bytes | None) -> Registered:
        """Create an account and spend its invitation."""
        if self._number_of(account.id) is not None:
            return Registered.KNOWN
        if invitation is not None:
            self._run("delete from invitations where expires <= ?", (account.created,))
            found = self.invitation(invitation)
            if found is None:
                return Registered.INVITE_REQUIRED
            if not found.uses:
                return Registered.INVITE_USED
        if self._run("select 1 from accounts where name = ?", (account.name,)).fetchone():
            return Registered.NAME_TAKEN
        if invitation is not None:
            self._spend(invitation)
        epoch = None if account.epoch is None else _packed(account.epoch)
        row = (self._new_number(), *account[:5], epoch)
        self._run("insert into accounts values (?, ?, ?, ?, ?, ?, ?)", row)
        self._people.pop(account.id, None)
        return Registered.DONE

    def connected(self, account: str, epoch: int | None) -> Account | None:
        """Note the epoch of a connect."""
        found = self.find(account)
        if found is None:
            return None
        if epoch is not None and (found.epoch is None or epoch > found.epoch):
            self._run("update accounts set epoch = ? where id = ?", (_packed(epoch), account))
        return found

    # --- invitations ---

    def invite(self, invitation: bytes, uses: int = 1, expires: int | None = None) -> None:
        """Take note of an invitation."""
        self.withdraw(invitation)
        self._run("insert into invitations (hash, uses, expires) values (?, ?, ?)", (invitation, uses, expires))

    def invitation(self, invitation: bytes) -> Invitation | None:
        """One of them."""
        row = self._run("select hash, uses, expires from invitations where hash = ?", (invitation,)).fetchone()
        return None if row is None else Invitation(*row)

    def invitations(self) -> list[Invitation]:
        """Those that are not spent, oldest first."""
        rows = self._run("select hash, uses, expires from invitations where uses > 0 order by number")
        return [Invitation(*row) for row in rows]

    def withdraw(self, invitation: bytes) -> bool:
        """Forget an invitation."""
        return self._run("delete from invitations where hash = ?", (invitation,)).rowcount > 0

    def _spend(self, invitation: bytes) -> None:
        # A spent one does not expire: that it was used is worth saying for as long as it is remembered.
        spend = "update invitations set uses = uses - 1, expires = iif(uses = 1, null, expires) where hash = ?"
        self._run(spend, (invitation,))
        oldest = "select number from invitations where uses = 0 order by number desc limit 1 offset ?"
        self._run(
            f"delete from invitations where uses = 0 and number <= ({oldest})",  # noqa: S608 - our own names
            (MAX_SPENT_INVITATIONS,),
        )

    # --- prekeys ---

    def bundle(self, owner: str) -> Published | None:
        """Somebody's newest bundle."""
        number = self._number_of(owner)
        row = self._run("select version, digest, raw from bundles where owner = ?", (number,)).fetchone()
        return None if row is None else Published(int.from_bytes(row[0], "big"), row[1], row[2])

    def publish(self, owner: str, bundle: Published, one_time_keys: Sequence[bytes]) -> bool:
        """Keep a bundle and more one-time keys."""
        number = self._number_of(owner)
        if number is None:
            return False
        before = self.bundle(owner)
        if before is not None and not bundle.may_follow(before):
            return False
        row = (number, _packed(bundle.version), bundle.digest, bundle.raw)
        if bundle != before:
            self._run("insert or replace into bundles values (?, ?, ?, ?)", row)
        for raw in one_time_keys:
            digest = sha256(raw).digest()
            if not self._run("select 1 from one_time_keys where owner = ? and digest = ?", (number, digest)).fetchone():
                key = self._key()
                values = (number, digest, masked(key, raw), self._slot(key))
                self._run("insert into one_time_keys (owner, digest, raw, slot) values (?, ?, ?, ?)", values)
        self._trim(number, "raw is not null", MAX_ONE_TIME_KEYS)
        return True

    def take(self, owner: str, fetcher: str, now: int) -> bytes | None:
        """The oldest of somebody's one-time keys; from then on only its digest is left."""
        number, other = self._number_of(owner), self._number_of(fetcher)
        if number is None:
            return None
        if other is None:
            other = self._source(fetcher)
        self._run("delete from fetches where owner = ? and time <= ?", (number, now - DAY))
        given = self._run("select 1 from fetches where owner = ? and fetcher = ?", (number, other)).fetchone()
        oldest = self._run(
            "select o.number, o.raw, s.key from one_time_keys o join slots s on s.number = o.slot"
            " where o.owner = ? and o.raw is not null order by o.number limit 1",
            (number,),
        ).fetchone()
        if given or oldest is None:
            return None
        self._free("number = ?", (oldest[0],))
        self._run("update one_time_keys set raw = null, slot = null where number = ?", (oldest[0],))
        self._run("insert into fetches (owner, fetcher, time) values (?, ?, ?)", (number, other, now))
        self._trim(number, "raw is null", MAX_SPENT)
        return masked(oldest[2], oldest[1])

    def _trim(self, owner: int, which: str, most: int) -> None:
        oldest = f"select number from one_time_keys where owner = ? and {which} order by number desc limit 1 offset ?"  # noqa: S608
        those = f"owner = ? and {which} and number <= ({oldest})"
        self._free(those, (owner, owner, most))
        self._run(f"delete from one_time_keys where {those}", (owner, owner, most))  # noqa: S608

    def _slot(self, key: bytes) -> int:
        """The number of a place for a key: a free one, or a new one at the end."""
        free = self._run("select number from slots where used = 0 order by number limit 1").fetchone()
        if free is None:
            return self._run("insert into slots (used, key) values (1, ?)", (key,)).lastrowid or 0
        self._run("update slots set used = 1, key = ? where number = ?", (key, free[0]))
        return int(free[0])

    def _free(self, which: str, values: tuple[int, ...]) -> None:
        """Forget the keys of these one-time keys."""
        slots = f"select slot from one_time_keys where slot is not null and {which}"  # noqa: S608 - our own names
        self._run(f"update slots set used = 0, key = ? where number in ({slots})", (GONE, *values))  # noqa: S608

    def _key(self) -> bytes:
        if not self._random:
            self._random = self._entropy(256 * KEY_SIZE)
        key, self._random = self._random[:KEY_SIZE], self._random[KEY_SIZE:]
        return key

    def _source(self, id: str, ahead: int = 1) -> int:
        """The number of somebody who does something, and may have no account any more.

        :param ahead: what they do may be one of so many letters that come next.
        """
        person = self._person(id)
        if person.account is not None:
            return person.account
        number = person.before[-1] if person.before else self._new_number()
        self._run("insert or replace into departed values (?, ?, ?)", (number, id, self._newest + ahead))
        self._people.pop(id, None)
        return number


def _account(row: Sequence[Any] | None) -> Account | None:
    if row is None:
        return None
    epoch = row[5]
    id, name, sign, dh, created, _ = row
    return Account(id, name, sign, dh, created, None if epoch is None else int.from_bytes(epoch, "big"))


def masked(key: bytes, data: bytes) -> bytes:
    """Data in AES-256-CTR with a key that is for them alone; again, and they are as they were."""
    return aes_stream(key, _START, "CTR", data)


def _packed(number: int) -> bytes:
    """A number of up to 64 bits without a sign, which SQLite's integers do not hold."""
    return number.to_bytes(8, "big")
