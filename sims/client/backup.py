"""A vault in one file that only a passphrase opens, and back.

::

    "sims backup 1\\n" ‖ stretch (22) ‖ part ‖ part ‖ …

The parts are 65,536 bytes of the contents each, the last of fewer or as many, sealed with ChaCha20-Poly1305 under the
passphrase's key (:mod:`sims.client.passphrase`), bound to all before them; nonce = number of the part from 0 (11 bytes)
‖ whether it is the last (1). So none can be left out, moved or cut off. The contents are a key of 32 bytes, which
nothing else has, and the SQLCipher database under it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from sims.client.files import held, sync, write_whole
from sims.client.passphrase import SALT_SIZE, STRETCH_SIZE, Passphrase, Stretch, new_stretch
from sims.client.vault import PLACE, check, connect, told
from sims.client.vault_key import (
    DRAFTS,
    KEY_SIZE,
    NEXT_KEY,
    NEXT_VAULT,
    VAULT,
    Ask,
    Secret,
    finish_restore,
    has_vault,
    read_key,
    write_key,
)
from sims.client.vault_pending import settle
from sims.client.vault_schema import COPIES, version
from sims.crypto.primitives import Refused, aead
from sims.errors import Code, LocalError

_FAMILY = b"sims backup "
_MAGIC = _FAMILY + b"1\n"
_HEAD_SIZE = len(_MAGIC) + STRETCH_SIZE
_PART = 65_536
_TAG_SIZE = 16


def back_up(folder: Path, file: Path, ask: Ask, passphrase: Callable[[], Passphrase]) -> None:
    """Write a vault to a file, as it is at one moment; a client may use it meanwhile.

    An older backup under that name is replaced, once the new one is whole; nothing else is.

    :param ask: for the vault's secret; ``passphrase`` for the file's, after that.
    :raises LocalError: ``unavailable``: there is no vault, it cannot be read, or the file cannot be written; as
        :func:`~sims.client.vault_key.read_key`.
    """
    vault = folder / VAULT
    if not has_vault(folder):
        raise LocalError(Code.UNAVAILABLE, f"there is no vault in {folder}")
    with held(folder, "backup"):
        if (folder / NEXT_KEY).exists():
            raise LocalError(Code.UNAVAILABLE, f"a restore into {folder} was cut off: start a client with it first")
        with _written(file):
            if file.exists() and not (file.is_file() and _is_backup(file)):
                raise LocalError(Code.UNAVAILABLE, f"{file} is there already, and is no backup")
        key = read_key(folder, ask, new=False)
        secret = passphrase()
        copy_key = os.urandom(KEY_SIZE)
        with _draft(folder) as draft:
            with told(vault), contextlib.closing(connect(vault, key)) as database:
                check(database, vault)
                version(database, vault)
                _copy(database, draft, copy_key)
            with told(vault), contextlib.closing(connect(draft, copy_key)) as copy:
                settle(copy)  # what was put off also says what was before it, which is forgotten
            with _written(file), open(draft, "rb") as contents, write_whole(file) as out:
                _seal(copy_key, contents, out, secret)


def restore(
    file: Path,
    folder: Path,
    passphrase: Callable[[], Passphrase],
    secret: Callable[[Passphrase], Secret | None],
    *,
    force: bool = False,
) -> None:
    """Make the vault of a folder from a backup. Nothing is replaced before all of the backup was read and checked.

    Whoever opens it next begins new sessions (:mod:`sims.client.vault_copied`).

    :param passphrase: asked for the file's; ``secret`` for what is to lock the vault's key, given that.
    :param force: replace a vault that is there. It is lost.
    :raises LocalError: ``policy``: there is a vault; ``not-authenticated``: another passphrase, or the file is damaged;
        ``unavailable``: no backup, a newer version's, a client uses the folder, or it cannot be written.
    """
    vault, following = folder / VAULT, folder / NEXT_VAULT
    with held(folder), held(folder, "backup"):
        finish_restore(folder)
        if has_vault(folder) and not force:
            text = (
                f"there is a vault in {folder} already: --force puts the backup in its place, and what it holds is lost"
            )
            raise LocalError(Code.POLICY, text)
        with _read(file) as contents:
            head = _head(contents, file)
            given = passphrase()
            parts = _parts(contents, head, given, file)
            first = next(parts)
            if len(first) < KEY_SIZE:
                raise _damaged(file)
            key = first[:KEY_SIZE]
            with _written(following), write_whole(following, ours=True) as out:
                out.write(first[KEY_SIZE:])
                for part in parts:
                    out.write(part)
        try:
            with told(following), contextlib.closing(connect(following, key)) as database:
                check(database, following)
                version(database, file)
            write_key(folder / NEXT_KEY, key, secret(given))
        except BaseException:
            finish_restore(folder)  # what was written goes again
            raise
        with _written(vault):
            following.rename(vault)  # from here on, whoever opens it sees it through
            sync(folder)
            finish_restore(folder)
            for copy in folder.glob(COPIES):
                copy.unlink()


def _copy(database: Any, draft: Path, key: bytes) -> None:
    """Everything in a database as it is now, in another file under another key, marked as a copy."""
    run = database.execute
    run(f"attach database ? as copy key \"x'{key.hex()}'\"", (str(draft),))
    run(f"pragma copy.auto_vacuum = {run('pragma main.auto_vacuum').fetchone()[0]}")
    run("pragma copy.synchronous = off")  # it is read once, by this process
    run("begin")
    run("select sqlcipher_export('copy')")
    found = run("pragma main.user_version").fetchone()[0]
    run(f"pragma copy.user_version = {found}")
    run("insert or replace into copy.facts (name, value) values (?, ?)", (PLACE, b"a backup"))
    run("commit")
    run("detach database copy")


@contextlib.contextmanager
def _draft(folder: Path) -> Iterator[Path]:
    """An empty file, for its owner alone, that is gone afterwards; and what SQLite puts beside it."""
    names = [folder / name for name in DRAFTS]
    path = names[0]
    with _written(path):
        for name in names:
            name.unlink(missing_ok=True)
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        yield path
    finally:
        for name in names:
            with contextlib.suppress(OSError):
                name.unlink()


def _seal(key: bytes, contents: BinaryIO, out: BinaryIO, passphrase: Passphrase) -> None:
    stretch = new_stretch(os.urandom(SALT_SIZE))
    head = _MAGIC + stretch.to_bytes()
    box = aead("CHACHA20_POLY1305", stretch.key(passphrase))
    out.write(head)
    number = 0
    part = key + contents.read(_PART - KEY_SIZE)
    while True:
        following = contents.read(_PART)
        out.write(box.encrypt(_nonce(number, last=not following), part, head))
        if not following:
            return
        number, part = number + 1, following


def _parts(contents: BinaryIO, head: bytes, passphrase: Passphrase, file: Path) -> Iterator[bytes]:
    """What was sealed, a part after the other; the last is not given before it is sure that it is the last."""
    stretch = Stretch.from_bytes(head[len(_MAGIC) :])
    if stretch is None:
        raise _damaged(file)
    box = aead("CHACHA20_POLY1305", stretch.key(passphrase))
    number = 0
    part = contents.read(_PART + _TAG_SIZE)
    while True:
        following = contents.read(_PART + _TAG_SIZE)
        try:
            yield box.decrypt(_nonce(number, last=not following), part, head)
        except Refused:
            if number:
                raise _damaged(file) from None
            text = f"that is not the passphrase of the backup {file}, or it is damaged"
            raise LocalError(Code.NOT_AUTHENTICATED, text) from None
        if not following:
            return
        number, part = number + 1, following


def _nonce(number: int, *, last: bool) -> bytes:
    return number.to_bytes(11, "big") + bytes((last,))


def _head(contents: BinaryIO, file: Path) -> bytes:
    head = contents.read(_HEAD_SIZE)
    if head.startswith(_FAMILY) and not head.startswith(_MAGIC[: len(head)]):
        raise LocalError(Code.UNAVAILABLE, f"{file} was written by a newer version of this program: update it")
    if not head.startswith(_MAGIC):
        raise LocalError(Code.UNAVAILABLE, f"{file} is no backup of a client")
    if len(head) < _HEAD_SIZE:
        raise _damaged(file)
    return head


def _is_backup(file: Path) -> bool:
    with open(file, "rb") as contents:
        return contents.read(len(_FAMILY)) == _FAMILY


def _damaged(file: Path) -> LocalError:
    return LocalError(Code.NOT_AUTHENTICATED, f"the backup {file} is damaged: nothing was restored from it")


@contextlib.contextmanager
def _read(file: Path) -> Iterator[BinaryIO]:
    try:
        with open(file, "rb") as contents:
            yield contents
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot read {file}: {error.strerror}") from None


@contextlib.contextmanager
def _written(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot write {file}: {error.strerror}") from None
