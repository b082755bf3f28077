"""A disk that forgets what was not synced, for processes that are killed: what a power cut leaves of a folder.

A library that is preloaded into the processes (``forgetful.c``) keeps aside what they sync. After a process is killed,
:meth:`ForgetfulDisk.forget` puts its folder back: a name is there if its directory was synced since; a file holds what
it held when it was last synced, and of what was written after that each block of 4 KiB at random or not.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

BLOCK = 4096


class Unavailable(Exception):  # noqa: N818 - it is no error of the test
    """There is no such disk here; says why."""


class _Entry(NamedTuple):
    name: str
    key: str
    is_folder: bool


class ForgetfulDisk:
    """What is beneath one folder.

    :param root: the folder; it is there, and is not forgotten itself.
    :param kept: an empty folder for what was synced.
    """

    def __init__(self, root: Path, kept: Path) -> None:
        """Build the library.

        :raises Unavailable: that cannot be done here.
        """
        self._root, self._kept = root.resolve(), kept.resolve()
        self._library = self._kept / "forgetful.so"
        for name in ("files", "folders"):
            (self._kept / name).mkdir()
        source = Path(__file__).with_name("forgetful.c")
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl", "-lpthread"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except OSError as error:
            raise Unavailable(f"a C compiler is needed (apt-get install gcc libc6-dev): {error}") from None
        if done.returncode:
            raise Unavailable(f"the library cannot be built here: {done.stderr.strip()}")

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Processes that are started within are watched."""
        wanted = {
            "LD_PRELOAD": str(self._library),
            "FORGETFUL_ROOT": str(self._root),
            "FORGETFUL_KEPT": str(self._kept),
        }
        before = {name: os.environ.get(name) for name in wanted}
        os.environ.update(wanted)
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value

    def forget(self, folder: Path, chance: random.Random) -> None:
        """What is in a folder is what a power cut leaves of it; nobody uses it just now.

        Files that stay are the same files, and are not touched if they are as they were.
        """
        folder = folder.resolve()
        self._make(folder, _key(folder), chance)
        # What is left was on the disk, or it would not be there.
        for path in (folder, *folder.rglob("*")):
            self._note(path)

    def _make(self, folder: Path, key: str, chance: random.Random) -> None:
        folder.mkdir(mode=0o700, exist_ok=True)
        entries = {entry.name: entry for entry in self._entries(key)}
        for path in list(folder.iterdir()):
            if path.is_dir() and path.name not in entries:
                shutil.rmtree(path)
            elif path.is_file() and (path.name not in entries or entries[path.name].key != _key(path)):
                path.unlink()
        for entry in entries.values():
            path = folder / entry.name
            if entry.is_folder:
                self._make(path, entry.key, chance)
                continue
            stored = self._kept / "files" / entry.key
            synced = stored.read_bytes() if stored.exists() else b""
            written = path.read_bytes() if path.exists() else synced
            left = _mixed(synced, written, chance)
            if not path.exists() or left != written:
                with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                    file.write(left)

    def _entries(self, key: str) -> list[_Entry]:
        listing = self._kept / "folders" / key
        if not listing.exists():
            return []
        rows = (line.split(" ", 2) for line in listing.read_text("utf-8").splitlines())
        return [_Entry(name, of, kind == "d") for of, kind, name in rows]

    def _note(self, path: Path) -> None:
        if path.is_dir():
            entries = [f"{_key(entry)} {'d' if entry.is_dir() else 'f'} {entry.name}\n" for entry in path.iterdir()]
            (self._kept / "folders" / _key(path)).write_text("".join(entries), "utf-8")
        else:
            shutil.copyfile(path, self._kept / "files" / _key(path))


def _mixed(synced: bytes, live: bytes, chance: random.Random) -> bytes:
    """Of what was written since the last sync, some has reached the disk, and some has not."""
    size = chance.choice((len(synced), len(live)))
    found = bytearray()
    for start in range(0, size, BLOCK):
        one, other = synced[start : start + BLOCK], live[start : start + BLOCK]
        block = chance.choice((one, other)) or one or other
        found += block[: size - start].ljust(min(BLOCK, size - start), b"\0")
    return bytes(found)


def _key(path: Path) -> str:
    """As in ``forgetful.c``: the inode, and when it was made; Python does not tell the latter, ``stat`` does."""
    done = subprocess.run(["stat", "--printf=%i %W %w", str(path)], capture_output=True, text=True, check=True)
    inode, seconds, text = done.stdout.split(" ", 2)
    nanoseconds = int(text.split(".")[1].split(" ")[0]) if "." in text else 0
    return f"{inode}-{seconds}-{nanoseconds}"
