"""What was said before: looked up, searched, explained, deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

from sims.client import events, why
from sims.client.desk import Desk, Ref
from sims.client.events import Contact, Delivery, Said
from sims.client.history import MOST, Entry, Wanted, nameless, words
from sims.client.names import folded
from sims.client.online import Online
from sims.client.outbox import entry_of
from sims.client.saying import said
from sims.client.store import Letter
from sims.errors import Code, LocalError

_DIGITS = 32
_BEGINNING = re.compile(r"[0-9a-f]{4,32}", re.ASCII)


class Remembering:
    """The history of one user."""

    def __init__(self, desk: Desk, online: Online) -> None:
        self._desk = desk
        self._online = online

    def __repr__(self) -> str:
        return "<remembering>"

    def history(self, person: str, name: str, limit: int, before: str | None, ref: Ref) -> None:
        """Tell what was said with somebody, be it that their id was not known then, or was another.

        :param before: the id of a message, of which only earlier ones are wanted.
        :raises LocalError: ``malformed``; ``unknown-recipient``, for a message that is not there.
        """
        most, peers = _limited(limit), self._peers(person, name)
        number = None if before is None else self._one(before, peers).number
        found = self._all(peers, before=number, limit=most)
        found.sort(key=lambda entry: entry.number)
        messages = tuple(self._said(entry) for entry in found[-most:])
        to = self._desk.people.contact(person) if person else Contact("", name)
        self._desk.events.append(events.History(to=to, messages=messages, ref=ref))

    def search(self, text: str, limit: int, ref: Ref) -> None:
        """Tell where words were said: all of them, or words that begin so.

        :raises LocalError: ``malformed``, when there is no word in it.
        """
        found = words(text)
        if not found:
            raise LocalError(Code.MALFORMED, "search for which words?")
        kept = self._desk.ledger.history(Wanted(words=found, limit=_limited(limit)))
        messages = tuple(self._said(entry) for entry in kept)
        self._desk.events.append(events.History(text=text, messages=messages, ref=ref))

    def why(self, number: str, ref: Ref) -> None:
        """Tell what has become of a message.

        :param number: its id, or how that begins.
        :raises LocalError: ``malformed``; ``unknown-recipient``, when there is no such message, or more than one.
        """
        entry = self._one(number)
        said = self._said(entry)
        self._desk.events.append(
            events.Why(
                id=said.id,
                peer=said.peer,
                state=said.state,
                text=why.of_ours(entry, self._waits(entry)) if said.ours else why.of_theirs(entry),
                times={"queued" if said.ours else "came": said.time, **said.times},
                code=said.code,
                ref=ref,
            )
        )

    def delete(self, person: str, name: str, ref: Ref) -> None:
        """Delete what was said with somebody: its history, texts that wait to be sent, shown or sent again.

        What was not accepted by the server fails, though it may have arrived if it has left. What was cannot be sent
        again, and whoever waits for its receipt hears that. Who they are stays, and whether that is verified; which
        messages were seen, so that none is shown twice; and the sessions, in which there is no text, as what they send
        next comes on them, and the oldest bundle and cipher spec that they may use is known by them.

        :raises LocalError: ``unknown-recipient``, when nothing is kept of anybody by that.
        """
        desk, peers = self._desk, self._peers(person, name)
        letters = [one for one in desk.outbox.texts() if entry_of(one).peer in peers]
        known = desk.people.get(person) is not None or desk.talks.has(person)
        if not (known or letters or self._all(peers, limit=1)):
            raise LocalError(Code.UNKNOWN_RECIPIENT, "nothing is kept of anybody by that")
        for letter in letters:
            self._let_go(letter)
        for peer in peers:
            desk.inbox.delete(peer)
            desk.talks.empty(peer)
            one = desk.people.get(peer)
            if one is not None and (one.asks or one.unread):
                one.asks = one.unread = ()
                desk.ledger.person(one)
            desk.ledger.delete(peer)
        contact = desk.people.contact(person) if person else Contact("", name)
        desk.events.append(events.Deleted(peer=contact, ref=ref))

    def _let_go(self, letter: Letter) -> None:
        """The text of a letter is not kept."""
        desk = self._desk
        if letter.state is Delivery.QUEUED:
            desk.fail(letter, Code.POLICY)
        elif letter.state is not Delivery.FAILED:
            ref = desk.refs.get(letter.number)
            if letter.state is Delivery.ACCEPTED and ref is not None:
                desk.problem(Code.POLICY, "what was said was deleted before it was known to have arrived", ref)
            desk.drop(letter)

    # --- within -------------------------------------------------------------------------------------------------------

    def _peers(self, person: str, name: str) -> tuple[str, ...]:
        """Under what it stands what was said with somebody: the id, those that had the name before, and the name, from
        when the id was not known."""
        known = self._desk.people.get(person)
        ids, names = [person], [name]
        if known is not None:
            ids += known.before
            names.append(known.name)
        return tuple(dict.fromkeys([*filter(None, ids), *map(_nameless, filter(None, names))]))

    def _all(self, peers: Iterable[str | None], **wanted: Any) -> list[Entry]:
        """What is wanted of each of some peers."""
        return [entry for peer in peers for entry in self._desk.ledger.history(Wanted(peer=peer, **wanted))]

    def _one(self, number: str, peers: Sequence[str | None] = (None,)) -> Entry:
        """The message of an id, or of an id that begins so; of those of some peers, or of all.

        Where somebody has given one of theirs the id of one of ours, it is ours.
        """
        begin = number.strip().lower()
        if not _BEGINNING.fullmatch(begin):
            raise LocalError(Code.MALFORMED, "a message has an id of 32 hexadecimal digits: give it, or its first 4")
        ids = bytes.fromhex(begin.ljust(32, "0")), bytes.fromhex(begin.ljust(32, "f"))
        ours = self._all(peers, sender="", ids=ids, limit=1) if len(begin) == _DIGITS else []
        found = ours or self._all(peers, ids=ids, limit=2)
        if not found:  # where no history is kept
            found = [entry_of(letter) for letter in self._desk.outbox.texts() if ids[0] <= letter.id <= ids[1]]
        if len(found) != 1:
            what = "more than one message has an id that begins so" if found else "no message with this id is known"
            raise LocalError(Code.UNKNOWN_RECIPIENT, what)
        return found[0]

    def _said(self, entry: Entry) -> Said:
        return said(entry, self._desk.people.contact)

    def _waits(self, entry: Entry) -> str:
        """What a text waits for that is queued."""
        letter = self._desk.outbox.text(entry.id)
        if letter is None or letter.state is not Delivery.QUEUED:
            return ""
        known = self._desk.people.get(letter.to)
        if known is not None and known.changed_to:
            return "the identity behind this name has changed; accept-identity takes the new one"
        if not self._online.is_ready:
            return "there is no connection to the server; it is being made"
        if letter.inner is not None:
            return "it is on its way to the server, which has not accepted it yet"
        if not letter.to:
            return "the server has not said yet who has this name"
        return "the keys of the recipient are not here yet; the server was asked for them"


def _nameless(name: str) -> str:
    return nameless(folded(name))


def _limited(limit: int) -> int:
    if not 1 <= limit <= MOST:
        raise LocalError(Code.MALFORMED, f"between 1 and {MOST} messages can be had at once")
    return limit
