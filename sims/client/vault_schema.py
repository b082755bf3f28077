"""The tables of a vault, and how a vault that an older version wrote comes to have them."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from math import inf
from pathlib import Path
from typing import Any

from sims.client.files import sync, write_whole
from sims.errors import Code, LocalError

#: What leads from each version to the next, a statement each; the first makes an empty file a vault. What a release has
#: brought is never changed, only added to. What was put off (``vault_pending``) is put into the tables before that: it
#: must fit those of each version from 3 on.
MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "create table facts (name text primary key, value blob not null) without rowid",
        "create table people (id text primary key, person blob not null) without rowid",
        "create table conversations (id text primary key, state blob not null) without rowid",
        "create table letters (number integer primary key, letter blob not null)",
        "create table arrived (number integer primary key, row blob not null)",
        "create table seen (sender text not null, number blob not null, time integer not null, "
        "primary key (sender, number)) without rowid",
    ),
    (
        "create table history (number integer primary key autoincrement, sender text not null, id blob not null, "
        "peer text not null, text text not null, entry blob not null, unique (sender, id))",
        "create index history_of_peer on history (peer, number)",
        "create index history_of_id on history (id)",
        # Deleted words leave the index at once, instead of being hidden by a note that they are gone.
        "create virtual table history_words using fts5 "
        "(text, content='history', content_rowid='number', tokenize='unicode61 remove_diacritics 2')",
        "insert into history_words (history_words, rank) values ('secure-delete', 1)",
    ),
    ("create table pending (number integer primary key, change blob not null)",),
)
#: The copy from before a migration is kept for so long at most: it holds keys that the vault itself forgets. Seconds.
KEEP_COPY = 7 * 86_400
#: What such copies are called.
COPIES = "vault.of-version-*"


def migrate(
    database: Any,
    path: Path,
    migrations: tuple[tuple[str, ...], ...] = MIGRATIONS,
    now: Callable[[], float] = time.time,
) -> None:
    """Bring a database to the newest version, in one transaction; what is not new is copied first, as it is on disk.

    :param database: opened with its key, and nobody else's; ``path`` its file.
    :raises LocalError: ``unavailable``: it was written by a newer version.
    """
    run = database.execute
    found, newest = version(database, path, migrations), len(migrations)
    if found == newest:
        forget_copies(path, now() - KEEP_COPY)
        return
    if found:
        _copy(database, path, found)
    run("begin immediate")
    try:
        for statements in migrations[found:]:
            for statement in statements:
                run(statement)
        run(f"pragma user_version = {newest}")
        run("commit")
    except BaseException:
        if database.in_transaction:
            run("rollback")
        raise


def version(database: Any, path: Path, migrations: tuple[tuple[str, ...], ...] = MIGRATIONS) -> int:
    """The version of a database; 0 of an empty one.

    :raises LocalError: ``unavailable``: it is a newer one than this program knows.
    """
    found: int = database.execute("pragma user_version").fetchone()[0]
    newest = len(migrations)
    if not 0 <= found <= newest:
        text = f"{path} was written by a newer version of this program ({found}; this one knows {newest}): update it"
        raise LocalError(Code.UNAVAILABLE, text)
    return found


def _copy(database: Any, path: Path, found: int) -> None:
    """Keep the file beside itself, encrypted as it is: whoever puts it back has the vault of before."""
    busy = database.execute("pragma wal_checkpoint(truncate)").fetchone()[0]
    if busy:
        raise LocalError(Code.UNAVAILABLE, f"cannot copy {path} before it is changed: something else has it open")
    copy = path.with_name(COPIES.replace("*", str(found)))
    with open(path, "rb") as file, write_whole(copy, ours=True) as out:
        while part := file.read(1 << 20):
            out.write(part)


def forget_copies(path: Path, before: float = inf) -> None:
    """Take away the copies beside a vault that were made before a time, Unix seconds; as far as the disk lets one."""
    with contextlib.suppress(OSError):  # another time
        old = [copy for copy in path.parent.glob(COPIES) if copy.stat().st_mtime < before]
        for copy in old:
            os.unlink(copy)
        if old:
            sync(path.parent)
