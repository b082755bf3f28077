"""A server's folder as one file, made while the server runs, without keeping it from its work.

One-time keys do not go with it: they would be handed out a second time by whoever goes on from it. Nor does what is
known of epochs: to a server that has seen none, clients publish keys anew.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

from sims.errors import Code, LocalError
from sims.server.folder import DATABASE, sync
from sims.server.sqlite_file import open_database, told

#: What of a folder is in a backup, besides the database.
KEPT = ("identity", "certificate.pem", "key.pem")

_DRAFTS = ".sims-backup-"
_NOT_KEPT = (
    "begin",
    "delete from one_time_keys",
    "delete from slots",
    "update accounts set epoch = null",
    "commit",
)


def back_up(folder: Path, target: Path) -> None:
    """Write everything that a server needs to go on to a tar file, which is there whole, or as it was before.

    :raises LocalError: ``unavailable``: it cannot be written, or the database not read; ``malformed``: that is damaged.
    """
    parent = target.absolute().parent
    try:
        with _drafts(parent) as drafts:
            copy, draft = drafts / DATABASE, drafts / "backup.tar"
            _copy_database(folder / DATABASE, copy, target)
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                with tarfile.open(fileobj=file, mode="w") as archive:
                    archive.add(copy, DATABASE, filter=_bare)
                    for name in KEPT:
                        if (folder / name).exists():
                            archive.add(folder / name, name, filter=_bare)
                file.flush()
                os.fsync(file.fileno())
            os.replace(draft, target)
            sync(parent)
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot write {target}: {error.strerror}") from None


@contextlib.contextmanager
def _drafts(parent: Path) -> Iterator[Path]:
    """A folder for what is not ended; those of processes that were killed before they had ended go."""
    for path in parent.glob(f"{_DRAFTS}*"):
        with contextlib.suppress(OSError), _locked(path, fcntl.LOCK_NB):
            if path.stat().st_uid == os.geteuid():
                shutil.rmtree(path)
    with tempfile.TemporaryDirectory(prefix=_DRAFTS, dir=parent) as name, _locked(Path(name)):
        yield Path(name)


@contextlib.contextmanager
def _locked(folder: Path, how: int = 0) -> Iterator[None]:
    """A folder for this process, until it ends if not before."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)
        yield
    finally:
        os.close(descriptor)


def _copy_database(path: Path, copy: Path, target: Path) -> None:
    os.close(os.open(copy, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with (
        closing(open_database(path, new=False)) as source,
        told(path, f"copy {path} to {target}"),
        closing(connect(copy, isolation_level=None)) as made,
    ):
        # All of it in one step is what there was at one moment: the server writes on meanwhile. In several steps, each
        # begins anew after whatever was written since the one before.
        source.backup(made)
        made.execute("pragma journal_mode = delete")  # one file, without a log beside it
        made.execute("pragma secure_delete = on")
        for statement in _NOT_KEPT:
            made.execute(statement)


def _bare(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nothing of this machine's users goes with a backup."""
    entry.uid = entry.gid = 0
    entry.uname = entry.gname = ""
    entry.mode = 0o600
    return entry
