"""A disk that can be full."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

from tests.forgetful import Unavailable


class SmallDisk:
    """A file system of its own, in memory, that can be filled. Only root may make one."""

    def __init__(self, where: Path, size: int) -> None:
        """Make it.

        :raises tests.forgetful.Unavailable: it cannot be made here.
        """
        where.mkdir(mode=0o700)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0700", "tmpfs", str(where)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise Unavailable(f"no file system can be mounted here: {error}") from None
        if done.returncode:
            raise Unavailable(f"no file system can be mounted here: {done.stderr.strip()}")
        self._where = where
        self._ballast = where / "ballast"

    def fill(self) -> None:
        """Leave no byte."""
        with contextlib.suppress(OSError), open(self._ballast, "ab", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def empty(self) -> None:
        """There is room again."""
        self._ballast.unlink()

    def close(self) -> None:
        """Let go of it."""
        subprocess.run(["umount", "-l", str(self._where)], check=False)
