"""The encrypted store of one user: a SQLCipher database, and the file that holds its key.

The key is random, 32 bytes, in a file beside the database that only its owner may read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import sqlcipher3  # type: ignore[import-untyped]
from msgspec import Struct

from sims.client.store import Arrived, Change, Letter, Person, Saved
from sims.errors import Code, LocalError

K = TypeVar("K")

KEY_SIZE = 32
_SCHEMA = 1
_TABLES = """
create table if not exists facts (name text primary key, value blob not null) without rowid;
create table if not exists people (id text primary key, person blob not null) without rowid;
create table if not exists conversations (id text primary key, state blob not null) without rowid;
create table if not exists letters (number integer primary key, letter blob not null);
create table if not exists arrived (number integer primary key, row blob not null);
create table if not exists seen (sender text not null, number blob not null, time integer not null,
                   primary key (sender, number)) without rowid;
"""
# Of one sender, all but so many of the newest.
_CROWDED = """
delete from seen where sender = ? and number in
    (select number from seen where sender = ? order by time desc, number limit -1 offset ?)
"""

_encoder = msgspec.msgpack.Encoder()
_person = msgspec.msgpack.Decoder(Person)
_letter = msgspec.msgpack.Decoder(Letter)
_arrived = msgspec.msgpack.Decoder(Arrived)


class Vault:
    """A :class:`~sims.client.store.Store` in a folder; one process at a time."""

    def __init__(self, folder: Path) -> None:
        """Open it, or make it.

        :param folder: there already, for its owner alone.
        :raises LocalError: ``unavailable``: it is in use, cannot be read or written, or its key is not the right one.
        """
        self._path = folder / "vault"
        self._database: Any = None
        self._lock: int | None = _locked(folder / "vault.lock")
        try:
            key = _key(folder / "vault.key", new=not self._path.exists())
            with _told(self._path):
                # Whoever makes the file first says who may read it.
                os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
                self._database = sqlcipher3.connect(str(self._path), isolation_level=None)
                self._set_up(key)
        except BaseException:
            self.close()
            raise

    def __repr__(self) -> str:
        return f"<vault {self._path}>"

    def _set_up(self, key: bytes) -> None:
        run = self._database.execute
        run("pragma cipher_log_level = none")  # what goes wrong is told by exceptions
        run(f"pragma key = \"x'{key.hex()}'\"")
        run("pragma cipher_memory_security = off")
        run("pragma journal_mode = wal")
        run("pragma synchronous = full")
        run("pragma secure_delete = on")
        run("pragma temp_store = memory")  # nothing of it is ever on the disk as it is
        found = run("pragma user_version").fetchone()[0]
        if found not in (0, _SCHEMA):
            raise LocalError(Code.UNAVAILABLE, f"{self._path} was written by another version of this program ({found})")
        with self._transaction():
            for statement in _TABLES.split(";"):
                run(statement)
            run(f"pragma user_version = {_SCHEMA}")

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
        with _told(self._path):
            return Saved(
                values=dict(run("select name, value from facts")),
                people={key: _person.decode(value) for key, value in run("select id, person from people")},
                conversations=dict(run("select id, state from conversations")),
                letters={number: _letter.decode(value) for number, value in run("select number, letter from letters")},
                arrived={number: _arrived.decode(value) for number, value in run("select number, row from arrived")},
            )

    def has_seen(self, sender: str, number: bytes) -> bool:
        """As :meth:`Store.has_seen`."""
        with _told(self._path):
            found = self._database.execute("select 1 from seen where sender = ? and number = ?", (sender, number))
            return found.fetchone() is not None

    def commit(self, change: Change) -> None:
        """As :meth:`Store.commit`."""
        with _told(self._path), self._transaction():
            self._put("facts", "name", "value", change.values)
            self._put("people", "id", "person", _encoded(change.people))
            self._put("conversations", "id", "state", change.conversations)
            self._put("letters", "number", "letter", _encoded(change.letters))
            self._put("arrived", "number", "row", _encoded(change.arrived))
            rows = [(sender, number, time) for (sender, number), time in change.seen.items()]
            self._database.executemany("insert or replace into seen values (?, ?, ?)", rows)
            if change.unseen:
                self._database.execute("delete from seen where time < ?", (change.unseen,))
            for sender, most in change.crowded.items():
                self._database.execute(_CROWDED, (sender, sender, most))

    def _put(self, table: str, key: str, value: str, rows: dict[Any, bytes | None]) -> None:
        gone = [(name,) for name, data in rows.items() if data is None]
        kept = [(name, data) for name, data in rows.items() if data is not None]
        if gone:
            self._database.executemany(f"delete from {table} where {key} = ?", gone)  # noqa: S608 - our own names
        if kept:
            self._database.executemany(
                f"insert or replace into {table} ({key}, {value}) values (?, ?)",  # noqa: S608
                kept,
            )

    def close(self) -> None:
        """As :meth:`Store.close`; again does no harm."""
        lock, self._lock = self._lock, None
        if lock is not None:
            if self._database is not None:
                self._database.close()
            os.close(lock)


def _encoded(rows: Mapping[K, Struct | None]) -> dict[K, bytes | None]:
    return {key: None if row is None else _encoder.encode(row) for key, row in rows.items()}


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    try:
        yield
    except (sqlcipher3.Error, OSError, msgspec.MsgspecError) as error:
        reason = "it is damaged, or the key beside it is another's" if "not a database" in str(error) else str(error)
        raise LocalError(Code.UNAVAILABLE, f"cannot use the vault {path}: {reason}") from None


def _locked(path: Path) -> int:
    try:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot use the folder {path.parent}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        text = f"the folder {path.parent} is in use by another client: close that one, or give another --dir or --name"
        raise LocalError(Code.UNAVAILABLE, text) from None
    return lock


def _key(path: Path, *, new: bool) -> bytes:
    """The key in its file; a fresh one for a new vault.

    :raises LocalError: ``unavailable``.
    """
    try:
        if not path.exists():
            if not new:
                raise LocalError(Code.UNAVAILABLE, f"the vault's key {path} is missing: without it nothing can be read")
            # Written whole before it has its name: a crash leaves no part of a key.
            draft = path.with_name(f"{path.name}.new")
            with contextlib.suppress(FileNotFoundError):
                draft.unlink()
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(os.urandom(KEY_SIZE))
                file.flush()
                os.fsync(file.fileno())
            draft.rename(path)
            _sync(path.parent)  # a vault whose key a power cut takes would be lost
        key = path.read_bytes()
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot use the vault's key {path}: {error.strerror}") from None
    if len(key) != KEY_SIZE:
        raise LocalError(Code.UNAVAILABLE, f"{path} does not hold a key of {KEY_SIZE} bytes")
    return key


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
