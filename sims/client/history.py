"""What was said, as it is kept: one entry for each text, and for each message that could not be read."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from copy import copy

from msgspec import Struct

#: How many entries are given at once where nobody says how many, and at most.
PAGE = 50
MOST = 1000

#: States of what came: a text; a message that could not be read. What we sent has the states of a Delivery.
CAME = "came"
UNREADABLE = "unreadable"

_WORD = re.compile(r"[^\W_]+")


class Entry(Struct, kw_only=True):
    """One text, of ours or of somebody else; or a message of theirs that could not be read.

    :ivar number: in which order they were first kept; given by the store.
    :ivar id: the text's, 16 bytes; of what could not be read, the mid of the message.
    :ivar sender: the id of who wrote it; empty for a text of ours.
    :ivar peer: the id of the other person; :func:`nameless` of the ``name`` while only that is known.
    :ivar text: None in a note of what has changed, where it stays as it was.
    :ivar state: how far one of ours has come, a :class:`~sims.client.events.Delivery`; otherwise ``CAME`` or
        ``UNREADABLE``.
    :ivar code: why it failed, or could not be read.
    :ivar time: when it was asked for, or came, Unix seconds.
    :ivar times: when it came into its further states, Unix seconds.
    :ivar again: how many times it was sent once more, as its recipient could not read it.
    :ivar verified: as in :class:`~sims.client.events.Message`, with ``confirmed``, ``order`` and ``missing``.
    """

    number: int = 0
    id: bytes
    sender: str = ""
    peer: str = ""
    name: str = ""
    text: str | None = None
    state: str
    code: str = ""
    time: int
    times: dict[str, int] = {}
    again: int = 0
    verified: bool = False
    confirmed: bool = True
    order: str | None = None
    missing: tuple[int, ...] = ()

    @property
    def key(self) -> tuple[str, bytes]:
        """What there is one entry of."""
        return self.sender, self.id

    def __repr__(self) -> str:
        return f"<entry {self.number} {self.state}>"


class Wanted(Struct, frozen=True, kw_only=True):
    """Which entries are asked for: those that are all of it. The newest so many, unless ``after`` is given.

    :ivar words: each begins a word of the text, as :func:`words` gives them.
    :ivar ids: the first and the last id, 16 bytes each.
    :ivar before: only entries before the one of this number; ``after``: the oldest behind this number.
    """

    peer: str | None = None
    sender: str | None = None
    words: tuple[str, ...] = ()
    ids: tuple[bytes, bytes] | None = None
    before: int | None = None
    after: int | None = None
    limit: int = PAGE

    def __repr__(self) -> str:
        return f"<at most {self.limit} entries>"


def nameless(name: str) -> str:
    """What stands in place of an id that is not known: a name in its one spelling, after a sign that no id has."""
    return f"?{name}"


def words(text: str) -> tuple[str, ...]:
    """The words of a text as they are compared: small letters, without accents."""
    plain = "".join(char for char in unicodedata.normalize("NFKD", text) if not unicodedata.combining(char))
    return tuple(_WORD.findall(plain.casefold()))


class Kept:
    """The entries of a store that is in memory."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, bytes], Entry] = {}
        self._next = 1

    def __repr__(self) -> str:
        return f"<{len(self._entries)} entries>"

    def note(self, entries: Iterable[Entry]) -> None:
        """Entries are new, or have changed. What somebody else has said stays as it is, whatever has its id."""
        for entry in entries:
            known = self._entries.get(entry.key)
            if known is not None and entry.sender and entry.text is not None:
                continue
            kept = copy(entry)
            if known is not None:
                kept.number = known.number
                kept.text = known.text if entry.text is None else entry.text
            elif entry.text is None:
                continue  # it was deleted
            else:
                kept.number, self._next = self._next, self._next + 1
            self._entries[entry.key] = kept

    def delete(self, peer: str) -> None:
        """Nothing of what was said with somebody is kept."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry.peer != peer}

    def find(self, wanted: Wanted) -> list[Entry]:
        """Those that are wanted, in order."""
        found = [copy(entry) for entry in self._entries.values() if _is(entry, wanted)]
        found.sort(key=lambda entry: entry.number)
        return found[: wanted.limit] if wanted.after is not None else found[max(0, len(found) - wanted.limit) :]


def _is(entry: Entry, wanted: Wanted) -> bool:
    if wanted.peer is not None and entry.peer != wanted.peer:
        return False
    if wanted.sender is not None and entry.sender != wanted.sender:
        return False
    if wanted.ids is not None and not wanted.ids[0] <= entry.id <= wanted.ids[1]:
        return False
    if wanted.before is not None and entry.number >= wanted.before:
        return False
    if wanted.after is not None and entry.number <= wanted.after:
        return False
    if not wanted.words:
        return True
    found = words(entry.text or "")
    return all(any(word.startswith(begin) for word in found) for begin in wanted.words)
