"""What a server keeps in its folder, each for its owner alone: identity, certificate, link, and a lock.

========================  =================================================================================
``identity``              the two private keys, 64 bytes; whoever has them is the server
``certificate.pem``       of TLS, and ``key.pem`` its key, where none were given by name
``link``                  the link with the newest invitation, as text
``server.db``             accounts, prekeys, mailboxes (:mod:`sims.server.sqlite_file`), with ``-wal`` and ``-shm``
                          beside it; ``server.reserve`` takes up room for what must still be written when the disk is
                          full
``lock``                  held by the server that runs
========================  =================================================================================
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path

from sims.crypto.certificate import SelfSigned, self_signed
from sims.crypto.identity import Identity, parse_server_link
from sims.crypto.primitives import ModernEntropy
from sims.errors import Code, LocalError, PeerError

DATABASE = "server.db"
IDENTITY_SIZE = 64
#: What :func:`write` writes here.
WRITTEN = ("identity", "certificate.pem", "key.pem", "link")
_MAX_PEM = 1024 * 1024


class Folder:
    """The folder of one server.

    Everything raises :class:`LocalError` with ``unavailable`` when the folder cannot be used, and ``malformed`` when
    what is in a file is not what should be there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    def lock(self) -> None:
        """Take the folder for this process, until :meth:`unlock` or its end."""
        path = self.path / "lock"
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise _unusable(path, error) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            raise LocalError(Code.UNAVAILABLE, f"another server runs in {self.path}") from None
        self._lock = descriptor
        for name in WRITTEN:  # of processes that were killed: a link that is good still, or keys
            for draft in self.path.glob(f".{name}.{'[a-z0-9_]' * 8}"):
                with contextlib.suppress(OSError):
                    draft.unlink()

    def unlock(self) -> None:
        """Let another process have it."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def identity(self, entropy: ModernEntropy) -> Identity:
        """The server's identity, made the first time."""
        path = self.path / "identity"
        stored = _read(path)
        if stored is None:
            made = Identity.generate(entropy)
            write(path, made.private_bytes())
            return made
        if len(stored) != IDENTITY_SIZE:
            raise LocalError(Code.MALFORMED, f"{path} is not an identity: it has {len(stored)} bytes")
        return Identity(stored[:32], stored[32:])

    def certificate(self, now: float) -> SelfSigned:
        """The certificate that nobody has to give, made the first time."""
        certificate, key = self.path / "certificate.pem", self.path / "key.pem"
        if not certificate.exists() or not key.exists():
            made = self_signed(now)
            write(key, made.key)
            write(certificate, made.certificate)
        return read_certificate(certificate, key)

    @property
    def database(self) -> Path:
        """Where the store is."""
        return self.path / DATABASE

    def invitation(self) -> str | None:
        """That of the last link; None without one, or when nobody can make out what is in the file."""
        try:
            return parse_server_link((_read(self.path / "link") or b"").decode("utf-8", "replace")).invite
        except PeerError:
            return None

    def write_link(self, link: str) -> None:
        """Replace the link."""
        write(self.path / "link", link.encode("utf-8") + b"\n")


def read_certificate(certificate: Path, key: Path) -> SelfSigned:
    """The PEM texts in two files, as they are.

    :raises LocalError: ``unavailable``, when they cannot be read.
    """
    found = []
    for path in (certificate, key):
        text = _read(path)
        if text is None:
            raise LocalError(Code.UNAVAILABLE, f"there is no file {path}")
        found.append(text)
    return SelfSigned(*found)


def write(path: Path, data: bytes) -> None:
    """Replace a file by one for its owner alone: at any moment, whoever reads it finds the old or the new one whole.

    :raises LocalError: ``unavailable``.
    """
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            sync(path.parent)  # an identity whose name a power cut takes would be another server's
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise _unusable(path, error) from None


def sync(folder: Path) -> None:
    """Have the names of files in a folder last over a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(path: Path) -> bytes | None:
    """What is in a file; None when there is none."""
    try:
        with path.open("rb") as file:
            return file.read(_MAX_PEM)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error) from None


def _unusable(path: Path, error: OSError) -> LocalError:
    return LocalError(Code.UNAVAILABLE, f"cannot use {path}: {error.strerror}")
