"""What was said, out of a store: conversation by conversation, message by message, for whoever writes it down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from sims.client.events import Contact, Said
from sims.client.files import write_whole
from sims.client.history import MOST, Entry, Wanted
from sims.client.saying import fields, said
from sims.client.store import Store
from sims.errors import Code, LocalError


def conversations(store: Store) -> Iterator[tuple[Contact, Iterator[Said]]]:
    """Everybody with whom something was said, who came first first, and what, the oldest first.

    No more than :data:`~sims.client.history.MOST` messages are in memory at once.

    :raises LocalError: ``unavailable``: the store cannot be read.
    """
    names = {person.id: person.name for person in store.load().people.values()}

    def contact(person: str) -> Contact:
        return Contact(person, names.get(person, ""))

    # By their order alone; who has no id yet stands under a name.
    peers = dict.fromkeys(entry.peer for entry in _entries(store, None))
    for peer in peers:
        found = (said(entry, contact) for entry in _entries(store, peer))
        first = next(found)
        yield first.peer, chain((first,), found)


def export(store: Store, path: Path, lines: Callable[[Store], Iterator[str]]) -> int:
    """Write a file of all that was said, for its owner alone, whole or not at all; gives how many messages it has.

    :param lines: :func:`as_json`, or another that gives one piece of text for each message.
    :raises LocalError: ``unavailable``: the store cannot be read, or the file not written. What was there stays then.
    """
    try:
        with write_whole(path) as file:
            return write_lines(store, file, lines)
    except OSError as error:
        raise LocalError(Code.UNAVAILABLE, f"cannot write {path}: {error.strerror}") from None


def write_lines(store: Store, file: BinaryIO, lines: Callable[[Store], Iterator[str]]) -> int:
    """The same into a file that is open.

    :raises OSError: it cannot be written.
    :raises LocalError: ``unavailable``: the store cannot be read.
    """
    count = 0
    for line in lines(store):
        file.write(line.encode("utf-8", "replace") + b"\n")
        count += 1
    return count


def as_json(store: Store) -> Iterator[str]:
    """One object of JSON for each message, in ASCII, with the fields that the event ``history`` has for it."""
    for _, messages in conversations(store):
        for message in messages:
            yield json.dumps(fields(message), separators=(",", ":"))


def _entries(store: Store, peer: str | None) -> Iterator[Entry]:
    after = 0
    while page := store.history(Wanted(peer=peer, after=after, limit=MOST)):
        yield from page
        after = page[-1].number
