"""The key of a vault, 32 random bytes, in a file beside it that only its owner may read.

The file holds the key as it is, or locked by a passphrase, which can be changed without the vault::

    "sims vault key 1\\n" ‖ kind (u8) ‖ stretch (22) ‖ nonce (12) ‖ box (48)

The box is ChaCha20-Poly1305 of the key, under the passphrase's (:mod:`sims.client.passphrase`), bound to all before it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from enum import IntEnum
from pathlib import Path
from typing import NamedTuple

from sims.client.files import held, sync, write_whole
from sims.client.passphrase import SALT_SIZE, STRETCH_SIZE, Passphrase, Stretch, new_stretch
from sims.crypto.primitives import aead_open, aead_seal
from sims.errors import Code, LocalError, PeerError

KEY_SIZE = 32
VAULT, KEY = "vault", "vault.key"
#: What a restore has written and not put in its place yet: whole, or not there.
NEXT_VAULT, NEXT_KEY = "vault.next", "vault.key.next"
#: What a backup makes its file of, and what SQLite puts beside that; nothing of them stays.
DRAFTS = ("vault.draft", "vault.draft-journal")

_FAMILY = b"sims vault key "
_MAGIC = _FAMILY + b"1\n"
_NONCE_SIZE, _TAG_SIZE = 12, 16
_SIZE = len(_MAGIC) + 1 + STRETCH_SIZE + _NONCE_SIZE + KEY_SIZE + _TAG_SIZE


class Kind(IntEnum):
    """What locks the key: a passphrase that a person knows, or one that the desktop's keyring holds."""

    PASSPHRASE = 1
    KEYRING = 2


class Lock(NamedTuple):
    """What stands in a locked file besides the key.

    :ivar salt: 16 bytes that no other lock has; the keyring knows its passphrase by them.
    """

    kind: Kind
    salt: bytes


class Secret(NamedTuple):
    """What locks a key, or opens it.

    :ivar salt: of the lock, where it is not to be a random one.
    """

    passphrase: Passphrase
    kind: Kind = Kind.PASSPHRASE
    salt: bytes | None = None


#: Asked for the secret of a lock, or with None for that of a new vault; None for no secret.
Ask = Callable[[Lock | None], Secret | None]


def has_vault(folder: Path) -> bool:
    """Whether there is a vault in a folder, be the folder there or not.

    :raises LocalError: ``unavailable``: that cannot be seen.
    """
    try:
        os.stat(folder / VAULT)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot use the folder {folder}: {error.strerror}") from None
    return True


def is_ours(folder: Path, file: Path) -> bool:
    """Whether a file, which need not be there, has its place among those of a profile."""
    same = os.path.realpath(file.parent) == os.path.realpath(folder)
    return same and file.name.startswith((VAULT, "backup.lock"))


def read_key(folder: Path, ask: Ask, *, new: bool, locked: bool = False) -> bytes:
    """The key in a folder that is held; a fresh one for a new vault.

    :param locked: whoever opens it has named a secret: a key that is there has to be locked by one.
    :raises LocalError: ``unavailable``; ``not-authenticated``, for another passphrase; ``policy``, for a key that is
        not locked and should be; whatever ``ask`` raises.
    """
    path = folder / KEY
    data = _read(path)
    if data is None:
        if not new:
            raise LocalError(Code.UNAVAILABLE, f"the vault's key {path} is missing: without it nothing can be read")
        key = os.urandom(KEY_SIZE)
        write_key(path, key, ask(None))  # first: a vault whose key a crash takes would be lost
        return key
    if locked and len(data) == KEY_SIZE:
        if new:  # a first start was cut off before the vault was there: nothing is under this key yet
            _relock(path, data, ask(None))
            return data
        text = f"the vault in {folder} has no passphrase, and opens with none: 'sims-client passphrase' sets one"
        raise LocalError(Code.POLICY, text)
    return _unlocked(path, data, ask)


def write_key(path: Path, key: bytes, secret: Secret | None) -> None:
    """Keep a key, locked by a secret or as it is, in the place of what was there.

    :raises LocalError: ``unavailable``.
    """
    data = key if secret is None else _locked(key, secret)
    try:
        with write_whole(path, ours=True) as file:
            file.write(data)
    except OSError as error:
        raise _cannot_use(path, error) from None


def read_lock(folder: Path) -> Lock | None:
    """What locks the key in a folder; None where nothing does, or there is no key.

    :raises LocalError: ``unavailable``.
    """
    path = folder / KEY
    data = _read(path)
    return None if data is None or len(data) == KEY_SIZE else _parse(path, data)[0]


def change_secret(folder: Path, ask: Ask, new: Callable[[], Secret | None], *, locked: bool = False) -> None:
    """Lock a vault's key by another secret, or by none. The vault stays as it is, and so does its key.

    A crash leaves the old lock or the new one. Who has a copy of the old file opens the vault with the old secret; the
    old file itself is overwritten, where the disk lets one do that.

    :param ask: for the present secret; ``new`` for the other one, once the present one has opened the lock.
    :param locked: as for :func:`read_key`.
    :raises LocalError: as :func:`read_key`; ``unavailable`` too while a client uses the vault, and for no vault.
    """
    if not has_vault(folder):
        raise LocalError(Code.UNAVAILABLE, f"there is no vault in {folder}")
    path = folder / KEY
    with held(folder):
        finish_restore(folder)
        key = read_key(folder, ask, new=False, locked=locked)
        _relock(path, key, new())


def _relock(path: Path, key: bytes, secret: Secret | None) -> None:
    before: int | None = None
    with contextlib.suppress(OSError):  # its owner may have made it read-only: then it cannot be overwritten
        before = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        write_key(path, key, secret)
        if before is not None:
            with contextlib.suppress(OSError):  # the new lock is in its place all the same
                _overwrite(before)
    finally:
        if before is not None:
            os.close(before)


def _overwrite(handle: int) -> None:
    """Leave nothing in the blocks of a file that has no name any more; one that has another is somebody's copy."""
    status = os.fstat(handle)
    if not status.st_nlink:
        os.pwrite(handle, bytes(status.st_size), 0)
        os.fsync(handle)


def forget_drafts(folder: Path) -> None:
    """Take away what a backup that was killed has left; one that is under way keeps it. Nobody can read it."""
    left = [folder / name for name in DRAFTS if os.path.lexists(folder / name)]
    if left:
        with contextlib.suppress(LocalError, OSError), held(folder, "backup"):
            for path in left:
                path.unlink(missing_ok=True)


def finish_restore(folder: Path) -> None:
    """See a restore through that a crash has cut off, or undo it, or a change; to be called with the folder held.

    The vault takes its place first: a key that waits while no vault does belongs to the one that is in place.

    :raises LocalError: ``unavailable``.
    """
    vault, key = folder / NEXT_VAULT, folder / NEXT_KEY
    try:
        for cut_off in (vault, key, folder / KEY):
            cut_off.with_name(f"{cut_off.name}.new").unlink(missing_ok=True)
        if vault.exists():
            key.unlink(missing_ok=True)
            sync(folder)
            vault.unlink()
        elif key.exists():
            for suffix in ("-wal", "-shm"):  # of the one that was there before
                (folder / f"{VAULT}{suffix}").unlink(missing_ok=True)
            key.rename(folder / KEY)
            sync(folder)
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot use the folder {folder}: {error.strerror}") from None


def _read(path: Path) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read(_SIZE + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _cannot_use(path, error) from None


def _cannot_use(path: Path, error: OSError) -> LocalError:
    return LocalError(Code.UNAVAILABLE, f"cannot use the vault's key {path}: {error.strerror}")


def _locked(key: bytes, secret: Secret) -> bytes:
    stretch = new_stretch(os.urandom(SALT_SIZE) if secret.salt is None else secret.salt)
    nonce = os.urandom(_NONCE_SIZE)
    head = _MAGIC + bytes((secret.kind,)) + stretch.to_bytes() + nonce
    return head + aead_seal("CHACHA20_POLY1305", stretch.key(secret.passphrase), nonce, head, key)


def _parse(path: Path, data: bytes) -> tuple[Lock, Stretch]:
    if data.startswith(_FAMILY) and not data.startswith(_MAGIC):
        raise LocalError(Code.UNAVAILABLE, f"{path} was written by a newer version of this program: update it")
    kind, start = data[len(_MAGIC) : len(_MAGIC) + 1], len(_MAGIC) + 1
    if len(data) == _SIZE and data.startswith(_MAGIC) and kind[0] in set(Kind):
        stretch = Stretch.from_bytes(data[start : start + STRETCH_SIZE])
        if stretch is not None:
            return Lock(Kind(kind[0]), stretch.salt), stretch
    raise LocalError(
        Code.UNAVAILABLE, f"{path} is damaged: it does not hold a key of {KEY_SIZE} bytes, nor a locked one"
    )


def _unlocked(path: Path, data: bytes, ask: Ask) -> bytes:
    if len(data) == KEY_SIZE:
        return data
    lock, stretch = _parse(path, data)
    secret = ask(lock)
    if secret is None:
        raise LocalError(Code.NOT_AUTHENTICATED, f"the vault in {path.parent} needs its passphrase")
    head, box = data[: -KEY_SIZE - _TAG_SIZE], data[-KEY_SIZE - _TAG_SIZE :]
    try:
        return aead_open("CHACHA20_POLY1305", stretch.key(secret.passphrase), head[-_NONCE_SIZE:], head, box)
    except PeerError:
        text = f"that is not the passphrase of the vault in {path.parent}"
        raise LocalError(Code.NOT_AUTHENTICATED, text) from None
