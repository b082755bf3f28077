"""Files for their owner alone, that are there whole or not at all; a folder that one client has to itself."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from sims.errors import Code, LocalError

#: What a client that uses a folder holds.
LOCK = "vault.lock"


@contextlib.contextmanager
def write_whole(path: Path, *, ours: bool = False) -> Iterator[BinaryIO]:
    """A file to write to, with the mode 0600 from the beginning; it has its name, durably, once all has gone well.

    What stood under that name before is replaced at that moment; after an error it stands there still.

    :param ours: the folder is a profile's: until then it is called ``PATH.new``, and replaces what a crash has left
        there. Elsewhere such a file is somebody's, and the name is one that no file has.
    :raises OSError: it cannot be written.
    """
    if ours:
        draft = path.with_name(f"{path.name}.new")
        with contextlib.suppress(FileNotFoundError):
            draft.unlink()
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    else:
        handle, name = tempfile.mkstemp(prefix=".sims-", dir=path.parent)  # 0600, too
        draft = Path(name)
    try:
        with open(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    except BaseException:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
    sync(path.parent)  # or a power cut could still take it


def sync(folder: Path) -> None:
    """Make names in a folder lasting.

    :raises OSError: they cannot be.
    """
    handle = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def held(folder: Path, purpose: str = "") -> Iterator[None]:
    """Hold a client's folder, as :func:`hold` does, for a while."""
    lock = hold(folder, purpose)
    try:
        yield
    finally:
        os.close(lock)


def hold(folder: Path, purpose: str = "") -> int:
    """Keep every other client out of a folder, until what this gives is closed.

    :param purpose: ``backup``, to keep out only what makes backups and puts them back.
    :raises LocalError: ``unavailable``: another holds it, or it cannot be used.
    """
    try:
        name = f"{purpose}.lock" if purpose else LOCK
        lock = os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot use the folder {folder}: {error.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        text = f"the folder {folder} is in use by another client: close that one, or give another --dir or --name"
        if purpose:
            text = f"another {purpose} or restore of {folder} is under way"
        raise LocalError(Code.UNAVAILABLE, text) from None
    return lock
