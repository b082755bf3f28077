"""The encrypted store of one user: a SQLCipher database, whose key stands beside it (:mod:`sims.client.vault_key`)."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import sqlcipher3  # type: ignore[import-untyped]
from msgspec.structs import replace

from sims.client import vault_history, vault_pending
from sims.client.files import LOCK, hold
from sims.client.history import Entry, Wanted
from sims.client.passphrase import Passphrase
from sims.client.store import UNREAD, Arrived, Change, Letter, Person, Saved
from sims.client.vault_copied import start_anew
from sims.client.vault_key import VAULT, Ask, Secret, finish_restore, forget_drafts, read_key
from sims.client.vault_pending import Pending, Row
from sims.client.vault_schema import KEEP_COPY, MIGRATIONS, forget_copies, migrate, version
from sims.crypto.primitives import ModernEntropy, SystemEntropy
from sims.errors import Code, LocalError

#: Facts that are not among the values: where the vault stood; when all of it was checked last, Unix seconds.
PLACE, CHECKED = "vault.place", "vault.checked"
#: All of it is read and checked after a crash, where it is a copy, and when that was done so long ago; seconds. What is
#: read for use is checked each time.
CHECK_EVERY = 86_400
#: A file is made smaller where so many pages, or three times those that are free, are written anew for it at most.
FEW_PAGES = 256
#: So many texts wait at most until their words are indexed.
MOST_UNINDEXED = 200
_COUNTS = ("freelist_count", "page_count")
# Of one sender, all but so many of the newest.
_CROWDED = """
delete from seen where sender = ? and number in
    (select number from seen where sender = ? order by time desc, number limit -1 offset ?)
"""

_person = msgspec.msgpack.Decoder(Person)
_letter = msgspec.msgpack.Decoder(Letter)
_arrived = msgspec.msgpack.Decoder(Arrived)


class Vault:
    """A :class:`~sims.client.store.Store` in a folder; one process at a time."""

    def __init__(
        self,
        folder: Path,
        passphrase: str | Ask | None = None,
        *,
        locked: bool = False,
        entropy: ModernEntropy | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Open it, or make it.

        One that is a copy, or was restored from one, begins with new sessions: the original may have gone on.

        :param folder: there already, for its owner alone.
        :param passphrase: what opens its key, or locks that of a new vault; or who is asked for it. Without one, a new
            vault's key is locked by nothing, and its file opens it.
        :param locked: refuse one that is there and has no passphrase, as is done where one is given.
        :param now: Unix seconds.
        :raises LocalError: ``unavailable``: it is in use, damaged, of a newer version, cannot be read or written, or
            its key is not the right one; ``not-authenticated``: the passphrase is not; ``policy``: it can be none, or
            the vault has none.
        """
        self._path = folder / VAULT
        self._database: Any = None
        self._dirty = True  # one that was killed has left its log
        self._stands = False
        self._unindexed = 0
        self._has_unread = False
        self._pending = Pending()
        self._checked = b""
        self._now = now
        ask = _asker(passphrase)
        self._lock: int | None = hold(folder)
        try:
            finish_restore(folder)
            forget_drafts(folder)
            crashed = os.path.lexists(f"{self._path}-wal")
            locked = locked or isinstance(passphrase, str)
            new = not self._path.exists() or not self._path.stat().st_size
            key = read_key(folder, ask, new=new, locked=locked)
            with told(self._path):
                # Whoever makes the file first says who may read it.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
                self._database = connect(self._path, key)
                self._database.execute("pragma journal_mode = wal")
                self._database.execute("pragma synchronous = full")
                self._database.execute("pragma secure_delete = on")
                self._check(crashed=crashed)
                self._pending.load(self._database)
                self._settle()  # what a crash or a backup has left is of the form that the tables have now
                migrate(self._database, self._path, now=now)
                self._has_unread = self._find_unread()
                self._unindexed = vault_history.unindexed(self._database)
                self._see_where_it_stands(entropy or SystemEntropy())
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<vault {self._path}>"

    def _fact(self, name: str) -> bytes | None:
        found = self._database.execute("select value from facts where name = ?", (name,)).fetchone()
        return None if found is None else bytes(found[0])

    def _check(self, *, crashed: bool) -> None:
        """Read all of it, if it is time to."""
        if version(self._database, self._path) == len(MIGRATIONS):  # an older one is about to be changed
            self._checked = self._fact(CHECKED) or b"0"
            recent = 0 <= self._now() - int(self._checked) < CHECK_EVERY
            if recent and not crashed and self._is_where_it_stood():  # a copy may be of two moments
                return
        check(self._database, self._path)
        self._checked = b"%d" % self._now()

    def _is_where_it_stood(self) -> bool:
        """Whether the file is the one that it was; one that does not say is not."""
        return self._fact(PLACE) in (self._place(), self._place(moving=True))

    def _see_where_it_stands(self, entropy: ModernEntropy) -> None:
        self._stay(Change() if self._is_where_it_stood() else start_anew(self.load(), entropy))
        self._stands = True

    def _place(self, *, moving: bool = False) -> bytes:
        """Which file this is, and when the lock beside it was changed last; ``moving``, as it stands in between."""
        changed = 0 if moving else os.stat(self._path.with_name(LOCK)).st_ctime_ns
        return b"%d %d" % (os.stat(self._path).st_ino, changed)

    def _stay(self, change: Change) -> None:
        """Commit a change, and where the vault stands.

        A copy is another file, unless it is written over the original: so the lock beside it is changed each time, and
        what the system says of when that was cannot be copied. Whatever ends the process in between, a vault that has
        stayed where it was is not taken for a copy.
        """
        self._commit(replace(change, values={**change.values, CHECKED: self._checked, PLACE: self._place(moving=True)}))
        if self._lock is not None:
            os.utime(self._lock)
            os.fsync(self._lock)
        self._commit(Change(values={PLACE: self._place()}))

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        self._database.execute("begin immediate")
        try:
            yield
            self._database.execute("commit")
        except BaseException:
            if self._database.in_transaction:
                self._database.execute("rollback")
            raise

    def load(self) -> Saved:
        """As :meth:`Store.load`."""
        run = self._database.execute
        with told(self._path):
            return Saved(
                values=self.values(),  # behind which nothing is put off
                people={key: _person.decode(value) for key, value in run("select id, person from people")},
                conversations=dict(run("select id, state from conversations")),
                letters={number: _letter.decode(value) for number, value in run("select number, letter from letters")},
                arrived={number: _arrived.decode(value) for number, value in run("select number, row from arrived")},
            )

    def values(self) -> dict[str, bytes]:
        """The values alone of what :meth:`load` gives.

        :raises LocalError: ``unavailable``: they cannot be read.
        """
        with told(self._path):
            self._settle()
            run = self._database.execute
            return dict(run("select name, value from facts where name not in (?, ?)", (PLACE, CHECKED)))

    def _find_unread(self) -> bool:
        found = self._database.execute("select 1 from seen where sender = ? limit 1", (UNREAD,)).fetchone()
        return found is not None

    def has_seen(self, sender: str, number: bytes) -> bool:
        """As :meth:`Store.has_seen`."""
        if sender == UNREAD and not self._has_unread:
            return False  # as nearly always
        if self._pending.has_seen(sender, number):
            return True
        with told(self._path):
            found = self._database.execute("select 1 from seen where sender = ? and number = ?", (sender, number))
            return found.fetchone() is not None

    def history(self, wanted: Wanted) -> list[Entry]:
        """As :meth:`Store.history`."""
        with told(self._path):
            if wanted.ids is not None and not self._pending.has_said(wanted):
                return vault_history.find(self._database, wanted)
            try:
                self._settle()
                if wanted.words:
                    self._index()
            except sqlcipher3.Error:  # the disk is full: as it would be, without writing it
                return self._find_as_if(wanted)
            return vault_history.find(self._database, wanted)

    def _find_as_if(self, wanted: Wanted) -> list[Entry]:
        self._database.execute("begin")
        try:
            self._pending.put(self._database)
            if wanted.words:
                vault_history.index(self._database)
            return vault_history.find(self._database, wanted)
        finally:
            if self._database.in_transaction:
                self._database.execute("rollback")

    def _index(self) -> None:
        if self._unindexed:
            with self._transaction():
                self._dirty = True
                vault_history.index(self._database)
            self._unindexed = 0

    def _settle(self) -> None:
        """Put what is put off into the tables."""
        if self._pending:
            with self._transaction():
                self._dirty = True
                new = self._pending.put(self._database)
            self._is_settled(new)

    def _is_settled(self, new: int) -> None:
        self._pending.clear()
        self._unindexed += new
        if self._unindexed >= MOST_UNINDEXED:
            with contextlib.suppress(sqlcipher3.Error):  # the disk is full: another time
                self._index()

    def commit(self, change: Change) -> None:
        """As :meth:`Store.commit`."""
        row = Row.of(change)
        dumped = row.dump()
        deletes = change.unseen or change.crowded or change.deleted
        if deletes or self._pending.is_full or len(dumped) > vault_pending.LARGE:
            self._commit(change)
            return
        with told(self._path), self._transaction():
            self._dirty = True
            vault_pending.write(self._database, dumped)
        self._pending.add(row, len(dumped))
        self._see(change)

    def _commit(self, change: Change) -> None:
        """Commit a change into the tables, behind all that is put off."""
        row = Row.of(change)
        with told(self._path), self._transaction():
            self._dirty = True
            new = self._pending.put(self._database)
            row.put(self._database)
            if change.unseen:
                self._database.execute("delete from seen where time < ?", (change.unseen,))
            for sender, most in change.crowded.items():
                self._database.execute(_CROWDED, (sender, sender, most))
            for peer in change.deleted:
                vault_history.delete(self._database, peer)
            new += vault_history.note(self._database, row.history)
        self._is_settled(new)
        self._see(change)
        if change.deleted:
            forget_copies(self._path)
            self._free()

    def _see(self, change: Change) -> None:
        self._has_unread = self._has_unread or any(sender == UNREAD for sender, _ in change.seen)

    def _free(self) -> None:
        """Give back the room of what was deleted, if it is worth it; secure_delete has already overwritten it."""
        with contextlib.suppress(sqlcipher3.Error):  # the disk is full: nothing is lost, and nothing of it is left
            free, pages = (self._database.execute(f"pragma {name}").fetchone()[0] for name in _COUNTS)
            if pages - free <= max(FEW_PAGES, 3 * free):
                self._database.execute("vacuum")
            self._empty_log()

    def _empty_log(self) -> bool:
        """Bring what stands in the log into the database, and empty it; False where anything else reads there now."""
        run = self._database.execute
        before = run("pragma busy_timeout").fetchone()[0]
        run("pragma busy_timeout = 0")  # nobody waits for this
        try:
            return not run("pragma wal_checkpoint(truncate)").fetchone()[0]
        finally:
            run(f"pragma busy_timeout = {before}")

    def tidy(self) -> None:
        """Leave nothing on the disk that was deleted; to be called some seconds after a commit, in quiet.

        What was deleted is overwritten as soon as it leaves its tables, but still stands in the log beside them.
        """
        if self._lock is not None:
            forget_copies(self._path, self._now() - KEEP_COPY)
            if self._dirty:
                with contextlib.suppress(sqlcipher3.Error):  # the disk is full: another time
                    try:
                        self._settle()
                        self._index()
                    finally:  # also where there was no room for that: emptying the log makes some
                        emptied = self._empty_log()  # not while a backup is being made
                        self._dirty = not emptied or bool(self._pending)

    def close(self) -> None:
        """As :meth:`Store.close`; again does no harm."""
        if self._stands:
            self._stands = False
            with contextlib.suppress(LocalError, OSError):  # it is taken for a copy then, which does no harm
                self._stay(Change())
        lock, self._lock = self._lock, None
        if lock is not None:
            if self._database is not None:
                self._database.close()
            os.close(lock)


def _asker(passphrase: str | Ask | None) -> Ask:
    if isinstance(passphrase, str):
        secret = Secret(Passphrase(passphrase))
        return lambda _: secret
    return passphrase or (lambda _: None)


def connect(path: Path, key: bytes) -> Any:
    """A connection to the database in a file that is there, be it empty.

    :raises sqlcipher3.Error: it cannot be used; with another key, whatever is done next raises it.
    :raises LocalError: ``unavailable``: nothing that was written would be encrypted.
    """
    database: Any = sqlcipher3.connect(str(path), isolation_level=None)
    run = database.execute
    if run("pragma cipher_version").fetchone() is None:  # SQLite alone takes what follows as well, and does nothing
        database.close()
        raise LocalError(Code.UNAVAILABLE, f"cannot use the vault {path}: the library 'sqlcipher3' has no SQLCipher")
    run("pragma cipher_log_level = none")  # what goes wrong is told by exceptions
    run(f"pragma key = \"x'{key.hex()}'\"")
    run("pragma cipher_memory_security = off")
    run("pragma temp_store = memory")  # nothing of it is ever on the disk as it is
    return database


def check(database: Any, path: Path) -> None:
    """Read all of it, and see whether it is as it was written.

    :raises LocalError: ``unavailable``: it is not.
    """
    if database.execute("pragma quick_check(1)").fetchone() != ("ok",):
        raise LocalError(Code.UNAVAILABLE, f"cannot use the vault {path}: it is damaged; a backup can be restored")


@contextlib.contextmanager
def told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlcipher3.Error, OSError, msgspec.MsgspecError) as error:
        reason = str(error)
        if "not a database" in reason:
            reason = "it is damaged, or the key beside it is another's"
        elif "malformed" in reason:
            reason = f"it is damaged ({reason}); a backup can be restored"
        elif "disk I/O error" in reason:  # also where the file for the shared memory cannot grow
            reason = f"the disk is full, or it cannot be read or written ({reason})"
        raise LocalError(Code.UNAVAILABLE, f"cannot use the vault {path}: {reason}") from None
