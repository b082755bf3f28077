"""What was said before: looked up, searched, explained, deleted."""

from __future__ import annotations

import re

from sims.client import events, why
from sims.client.desk import Desk, Ref
from sims.client.events import Contact, Delivery, Said
from sims.client.history import MOST, Entry, Wanted, nameless, words
from sims.client.names import folded
from sims.client.online import Online
from sims.client.outbox import entry_of
from sims.client.saying import said
from sims.errors import Code, LocalError

_BEGINNING = re.compile(r"[0-9a-f]{4,32}", re.ASCII)


class Remembering:
    """The history of one user."""

    def __init__(self, desk: Desk, online: Online) -> None:
        self._desk = desk
        self._online = online

    def __repr__(self) -> str:
        return "<remembering>"

    def history(self, person: str, name: str, limit: int, before: str | None, ref: Ref) -> None:
        """Tell what was said with somebody.

        :param before: the id of a message, of which only earlier ones are wanted.
        :raises LocalError: ``malformed``; ``unknown-recipient``, for a message that is not there.
        """
        number = None if before is None else self._one(before).number
        wanted = Wanted(peer=person or _nameless(name), before=number, limit=_limited(limit))
        to = self._desk.people.contact(person) if person else Contact("", name)
        self._desk.events.append(events.History(to=to, messages=self._found(wanted), ref=ref))

    def search(self, text: str, limit: int, ref: Ref) -> None:
        """Tell where words were said: all of them, or words that begin so.

        :raises LocalError: ``malformed``, when there is no word in it.
        """
        found = words(text)
        if not found:
            raise LocalError(Code.MALFORMED, "search for which words?")
        messages = self._found(Wanted(words=found, limit=_limited(limit)))
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

        What was not accepted by the server fails; what was cannot be sent again. Who they are stays, and whether that
        is verified; which messages were seen, so that none is shown twice; and the sessions, in which there is no text,
        as what they send next comes on them, and the oldest bundle and cipher spec that they may use is known by them.

        :raises LocalError: ``unknown-recipient``, when nothing is kept of anybody by that.
        """
        desk, peer = self._desk, person or _nameless(name)
        known = desk.people.get(person)
        letters = [one for one in desk.outbox.texts() if one.to == person] if person else []
        letters += desk.outbox.nameless(name) if name else []
        if not (known or desk.talks.has(person) or letters or desk.ledger.history(Wanted(peer=peer, limit=1))):
            raise LocalError(Code.UNKNOWN_RECIPIENT, "nothing is kept of anybody by that")
        for letter in letters:
            if letter.state is Delivery.QUEUED:
                desk.fail(letter, Code.POLICY)
            elif letter.state is not Delivery.FAILED:
                desk.drop(letter)
        desk.inbox.delete(person)
        desk.talks.empty(person)
        if known is not None and (known.asks or known.unread):
            known.asks = known.unread = ()
            desk.ledger.person(known)
        desk.ledger.delete(peer)
        if person and name:
            desk.ledger.delete(_nameless(name))
        contact = desk.people.contact(person) if person else Contact("", name)
        desk.events.append(events.Deleted(peer=contact, ref=ref))

    # --- within -------------------------------------------------------------------------------------------------------

    def _found(self, wanted: Wanted) -> tuple[Said, ...]:
        return tuple(self._said(entry) for entry in self._desk.ledger.history(wanted))

    def _one(self, number: str) -> Entry:
        begin = number.strip().lower()
        if not _BEGINNING.fullmatch(begin):
            raise LocalError(Code.MALFORMED, "a message has an id of 32 hexadecimal digits: give it, or its first 4")
        ids = bytes.fromhex(begin.ljust(32, "0")), bytes.fromhex(begin.ljust(32, "f"))
        found = self._desk.ledger.history(Wanted(ids=ids, limit=2))
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
