"""The server's database as a file: made for its owner alone, brought to the present version, or refused.

The number of the version stands in the file (``pragma user_version``); each migration makes one version of the one
before. Before the first of them the file is copied to ``NAME.before-VERSION``, and the copy is removed as soon as all
have gone through and the result is found whole: it would keep what the server has to forget. Only a migration that
fails leaves it. Who may want to go back to an older program makes a copy of their own, while no server runs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path

from sims.errors import Code, LocalError

#: "SIMS": what ``pragma application_id`` says of our files.
APPLICATION = 0x53494D53
#: Seconds that one process waits for another's transaction, and for what can as well be done later.
BUSY, BUSY_LATER = 60.0, 0.1
#: Bytes that a :class:`Reserve` takes up.
RESERVE = 8 * 1024 * 1024
#: Bytes that are written to see whether there is room.
PROBE = 64 * 1024
#: Bytes of a page, in a file that is made. SQLite writes pages one by one: of its own size, twice as many.
_PAGE = 8192
#: Pages of the log before it is worked into the file in passing.
_LOG_PAGES = 8192
#: KiB of the file that are held in memory: of SQLite's own 2,000 the bodies that come would take up all.
_CACHE = 16_384
#: For want of room; and what a quota looks like, too.
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE)
_MAYBE_FULL = (sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC)

_FIRST = """
create table accounts (number integer primary key, id text not null unique, name text not null unique,
    sign blob not null, dh blob not null, created integer not null, epoch blob);
create table departed (number integer primary key, id text not null, last integer not null);
create index departed_by_id on departed (id);
create index departed_by_last on departed (last);
create table invitations (number integer primary key, hash blob not null unique, uses integer not null,
    expires integer);
create index invitations_spent on invitations (number) where uses = 0;
create index invitations_by_end on invitations (expires) where expires is not null;
create table bundles (owner integer primary key, version blob not null, digest blob not null, raw blob not null);
create table one_time_keys (number integer primary key, owner integer not null, digest blob not null, raw blob,
    slot integer, unique (owner, digest));
create table slots (number integer primary key, used integer not null, key blob not null);
create index slots_free on slots (number) where used = 0;
create index one_time_keys_unspent on one_time_keys (owner, number) where raw is not null;
create index one_time_keys_spent on one_time_keys (owner, number) where raw is null;
create table fetches (number integer primary key, owner integer not null, fetcher integer not null,
    time integer not null, unique (owner, fetcher));
create index fetches_by_time on fetches (owner, time);
create index fetches_by_fetcher on fetches (fetcher);
create table written (number integer primary key, owner integer not null, other integer not null,
    unique (owner, other));
create index written_by_other on written (other);
create table letters (number integer primary key, dst integer not null, src integer not null,
    time integer not null, gone integer not null, mid blob not null);
create unique index letters_by_mid on letters (dst, src, mid);
create index letters_by_box on letters (dst, gone, number);
create table bodies (number integer primary key, body blob not null);
create table keys (number integer primary key, key blob not null);
create table pairs (dst integer not null, src integer not null, messages integer not null, size integer not null,
    primary key (dst, src)) without rowid;
create index pairs_by_src on pairs (src);
create table boxes (dst integer primary key, mids integer not null);
"""
_FILED = """
alter table letters add column filed integer not null default 1;
alter table letters add column mask integer not null default 0;
drop index letters_by_mid;
drop index letters_by_box;
create unique index letters_by_mid on letters (dst, src, mid) where filed = 1;
create index letters_by_box on letters (dst, gone, number) where filed = 1
"""
#: Each, as SQL, makes the version of its number of the one before; the first makes an empty file version 1.
MIGRATIONS: tuple[str, ...] = (_FIRST, _FILED)


def open_database(path: Path, *, migrations: Sequence[str] = MIGRATIONS, new: bool = True) -> sqlite3.Connection:
    """The connection to a server's database, which is made if need be; in no transaction.

    One thread at a time may use it.

    :param new: whether it may be made; and brought to the present version, which none but the server does.
    :raises LocalError: ``unavailable``: it cannot be used, is not there, or is of another version; ``malformed``: it is
        damaged, or not a server's database.
    """
    with told(path):
        if new:
            # Whoever makes the file first says who may read it; its log and index do as it does.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        elif not path.exists():
            raise LocalError(Code.UNAVAILABLE, f"there is no database {path}")
        database = sqlite3.connect(
            path, timeout=BUSY, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        try:
            _set_up(database, path, migrations, new)
        except BaseException:
            database.close()
            raise
    return database


def open_kept(path: Path, reserve: Reserve) -> sqlite3.Connection:
    """As :func:`open_database`, on a full disk too: the reserve is given up if there is no room to open it."""
    try:
        return open_database(path)
    except LocalError as error:
        if error.code is not Code.UNAVAILABLE or not reserve.is_needed() or not reserve.give_up():
            raise
    return open_database(path)


def _set_up(database: sqlite3.Connection, path: Path, migrations: Sequence[str], new: bool) -> None:
    run = database.execute
    (found,), (application,) = run("pragma user_version").fetchone(), run("pragma application_id").fetchone()
    (tables,) = run("select count(*) from sqlite_master").fetchone()
    if application != APPLICATION and (application or found or tables):
        raise LocalError(Code.MALFORMED, f"{path} is not a database of this server's")
    if found > len(migrations):
        text = f"{path} was written by a newer version of this program (its format is {found}, ours {len(migrations)})"
        raise LocalError(Code.UNAVAILABLE, text)
    if found < len(migrations) and not new:
        raise LocalError(Code.UNAVAILABLE, f"{path} is of an older version (its format is {found}): start the server")
    run(f"pragma page_size = {_PAGE}")
    if run("pragma journal_mode = wal").fetchone() != ("wal",):
        text = f"{path} cannot have its log beside it: SQLite needs another file system, which is on this machine"
        raise LocalError(Code.UNAVAILABLE, text)
    run("pragma synchronous = full")
    run("pragma secure_delete = on")
    run("pragma temp_store = memory")  # nothing of it is in a file that somebody forgets
    run(f"pragma wal_autocheckpoint = {_LOG_PAGES}")
    run(f"pragma cache_size = -{_CACHE}")
    if found < len(migrations):
        _migrate(database, path, migrations, found)
    if new:
        for version in range(2, len(migrations) + 1):  # of a migration before, too, whose end was a crash
            _copy_before(path, version).unlink(missing_ok=True)
        _empty(database, path)


def _empty(database: sqlite3.Connection, path: Path) -> None:
    """Work what a crash has left in the log into the file; where there is no room for that, it is for later."""
    try:
        checkpoint(database)
    except sqlite3.OperationalError as error:
        if not is_full(error, Reserve(reserve_of(path))):
            raise


def _migrate(database: sqlite3.Connection, path: Path, migrations: Sequence[str], found: int) -> None:
    backup = _copy_before(path, found + 1) if found else None
    if backup is not None:
        _back_up(database, backup)
    try:
        run = database.execute
        run("begin immediate")
        try:
            for migration in migrations[found:]:
                for statement in migration.split(";"):
                    run(statement)
            run(f"pragma application_id = {APPLICATION}")
            run(f"pragma user_version = {len(migrations)}")
            if backup is not None and run("pragma integrity_check(1)").fetchone() != ("ok",):
                raise sqlite3.DatabaseError("it is not whole afterwards")
            run("commit")
        except BaseException:
            if database.in_transaction:
                run("rollback")
            raise
    except sqlite3.Error as error:
        where = "" if backup is None else f"; it is as it was, and so is the copy {backup}"
        raise LocalError(Code.UNAVAILABLE, f"cannot bring {path} to the present format: {error}{where}") from None


def _copy_before(path: Path, version: int) -> Path:
    return path.with_name(f"{path.name}.before-{version}")


def _back_up(database: sqlite3.Connection, backup: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        backup.unlink()
    os.close(os.open(backup, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    with contextlib.closing(sqlite3.connect(backup)) as copy:
        database.backup(copy)


def checkpoint(database: sqlite3.Connection) -> bool:
    """Work the log into the file and empty it: then nothing is left anywhere of what was deleted.

    :returns: False when another process reads, and it is to be tried again.
    """
    with hasty(database):
        busy: int = database.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
    return not busy


@contextlib.contextmanager
def hasty(database: sqlite3.Connection) -> Iterator[None]:
    """What is done within does not wait long for other processes."""
    (before,) = database.execute("pragma busy_timeout").fetchone()
    database.execute(f"pragma busy_timeout = {BUSY_LATER * 1000:.0f}")
    try:
        yield
    finally:
        database.execute(f"pragma busy_timeout = {before}")


def reserve_of(path: Path) -> Path:
    """Where the :class:`Reserve` of a database stands."""
    return path.with_suffix(".reserve")


class Reserve:
    """A file that takes up room, to be given up when there is no other."""

    def __init__(self, path: Path, size: int = RESERVE) -> None:
        self._path = path
        self._size = size

    def take(self) -> bool:
        """Have it; False where there is no room."""
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                # Written, not only as long as that: a file with holes takes up nothing.
                if os.fstat(descriptor).st_size < self._size:
                    with open(descriptor, "wb", closefd=False) as file:
                        file.write(bytes(self._size))
                    os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError:
            self.give_up()
            return False
        return True

    def is_needed(self) -> bool:
        """Whether nothing can be written beside it: there is no room, or the owner has no right to more."""
        probe = self._path.with_suffix(".probe")
        try:
            with open(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600), "wb") as file:
                file.write(bytes(PROBE))
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            return error.errno in (errno.ENOSPC, errno.EDQUOT)
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()
        return False

    def room(self) -> int:
        """Bytes that there are beside it, whoever has a right to them; 0 where that cannot be told."""
        try:
            return shutil.disk_usage(self._path.parent).free
        except OSError:
            return 0

    def give_up(self) -> bool:
        """Make room; False when it was given up before."""
        try:
            self._path.unlink()
        except OSError:
            return False
        return True


def is_full(error: sqlite3.Error, reserve: Reserve | None) -> bool:
    """Whether something failed for want of room."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code in _FULL or (code in _MAYBE_FULL and reserve is not None and reserve.is_needed())


def is_busy(error: Exception) -> bool:
    """Whether something failed because another process was in the way."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def is_damaged(error: Exception) -> bool:
    """Whether something failed because the file is not what it was, or no database."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextlib.contextmanager
def told(path: Path, doing: str | None = None) -> Iterator[None]:
    """What goes wrong with a database, as :class:`LocalError`; ``doing``: what cannot be done then."""
    doing = doing or f"use {path}"
    try:
        yield
    except sqlite3.Error as error:
        if is_damaged(error):
            raise LocalError(Code.MALFORMED, f"{path} is damaged: put a backup in its place") from None
        raise LocalError(Code.UNAVAILABLE, f"cannot {doing}: {error}") from None
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot {doing}: {error.strerror}") from None
