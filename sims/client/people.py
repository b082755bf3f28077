"""Whom we know: names, ids, and what speaks for them belonging together."""

from __future__ import annotations

from collections.abc import Iterable

from sims.client.events import Contact
from sims.client.ledger import Ledger
from sims.client.names import can_be_asked, folded
from sims.client.store import Person
from sims.crypto.identity import PersonLink, PublicIdentity, is_id, parse_person_link
from sims.errors import Code, LocalError, PeerError

#: Strangers are forgotten when nothing was heard of them for so long (seconds), and beyond so many.
STRANGER_LIFE = 30 * 86_400
MOST_STRANGERS = 500

#: Seconds between two times at which what somebody says is taken to begin anew.
ANEW_EVERY = 3600


class People:
    """Everybody of one user. A name is the server's word; once held, it never changes its id silently."""

    def __init__(self, known: Iterable[Person], ledger: Ledger) -> None:
        self._ledger = ledger
        self._by_id = {person.id: person for person in known}
        self._by_name = {folded(person.name): person for person in self._by_id.values() if person.name}
        self._changes: list[Person] = []
        self._begins = {person.id: person for person in self._by_id.values() if person.begins}

    def __repr__(self) -> str:
        return f"<{len(self._by_id)} people>"

    def __len__(self) -> int:
        return len(self._by_id)

    def get(self, person_id: str) -> Person | None:
        """Who has this id, if we know them."""
        return self._by_id.get(person_id)

    def all(self) -> list[Person]:
        """Everybody."""
        return list(self._by_id.values())

    def named(self, name: str) -> Person | None:
        """Who holds this name."""
        return self._by_name.get(folded(name))

    def meet(self, person_id: str) -> Person:
        """Who has this id; from now on we know them."""
        person = self._by_id.get(person_id)
        if person is None:
            person = self._by_id[person_id] = Person(id=person_id)
            self._ledger.person(person)
        return person

    def contact(self, person_id: str) -> Contact:
        """As events name them."""
        person = self._by_id.get(person_id)
        return Contact(person_id, person.name if person is not None else "")

    def want(self, person_id: str) -> Person:
        """The user means this id: no stranger any more."""
        person = self.meet(person_id)
        if not person.ours:
            person.ours = True
            self._ledger.person(person)
        return person

    def whole(self, person_id: str) -> None:
        """All has come that somebody has said: what could not be read before is missed no more."""
        person = self._by_id.get(person_id)
        if person is not None and person.unread:
            person.unread = ()
            self._ledger.person(person)

    def heard(self, person_id: str, now: int) -> None:
        """Something of somebody was read; to the day, so that it seldom has to be stored."""
        person = self.meet(person_id)
        if now - person.heard >= 86_400:
            person.heard = now
            self._ledger.person(person)

    def begins_anew(self, person_id: str, session: bytes) -> None:
        """What somebody says begins anew, on this session; :meth:`begun` says when that is to be told."""
        person = self._begins[person_id] = self.meet(person_id)
        person.begins = session
        self._ledger.person(person)

    def begun(self, now: int) -> list[str]:
        """The ids of those of whom it is to be told now that they begin anew: once an hour."""
        return [key for key, one in self._begins.items() if _wait(one, now) <= 0]

    def begun_in(self, now: int) -> int | None:
        """In how many seconds it is to be told of the next one."""
        return min((_wait(one, now) for one in self._begins.values()), default=None)

    def told_anew(self, person_id: str, now: int) -> None:
        """It is told that somebody begins anew."""
        person = self._begins.pop(person_id)
        person.begins, person.anew = b"", now
        self._ledger.person(person)

    def recipient(self, to: str, server: str) -> tuple[str, str]:
        """Whom a command means: (id, name), of which one may be empty.

        :param to: an id, a name, or a link to a person. A link confirms the id that it holds.
        :param server: the id of the server that we are at.
        :raises LocalError: ``malformed``; ``unknown-recipient``, for what can be no name; ``policy``, for a link to
            somebody at another server, or one that gives another id for a name that is held.
        """
        to = to.strip()
        if not to:
            raise LocalError(Code.MALFORMED, "an empty recipient")
        if "://" in to:
            try:
                return self._linked(parse_person_link(to), server), ""
            except PeerError as error:
                raise LocalError(error.code, error.text) from None
        if is_id(to):
            return to, ""
        person = self.named(to)
        if person is not None:
            return person.id, person.name
        if not can_be_asked(to):
            raise LocalError(Code.UNKNOWN_RECIPIENT, "nobody has such a name")
        return "", to

    def _linked(self, link: PersonLink, server: str) -> str:
        if link.server != server:
            raise LocalError(Code.POLICY, "a link to somebody at another server than this profile's")
        held = self.named(link.name)
        if held is not None and held.id != link.id:
            self._changed(held, link.id)
            text = "the link gives another identity for a name that is held: accept-identity takes it, if it is right"
            raise LocalError(Code.POLICY, text)
        person = self.want(link.id)
        if not person.name:
            self.name(person, link.name)
        self.trust(person)
        return person.id

    def learn(self, identity: PublicIdentity) -> Person:
        """The keys of an id, once they are seen."""
        person = self.meet(identity.id)
        if not person.sign:
            person.sign, person.dh = identity.sign, identity.dh
            self._ledger.person(person)
        return person

    def name(self, person: Person, name: str) -> None:
        """This is the name of an id, says the server or a link. Where somebody else holds it, the user decides."""
        held = self.named(name)
        if held is not None and held is not person:
            self._changed(held, person.id)
        elif not person.name:  # a held name stays, whatever the server says later
            person.name = name
            self._by_name[folded(name)] = person
            self._ledger.person(person)

    def take_changes(self) -> list[Person]:
        """Those whose names were given for other ids, since this was asked last."""
        changes, self._changes = self._changes, []
        return changes

    def _changed(self, held: Person, new: str) -> None:
        if held.changed_to != new:
            held.changed_to = new
            self._changes.append(held)
            self._ledger.person(held)

    def accept(self, held: Person) -> Person:
        """The user accepts the other id for a name: it has the name from now on, and is not verified by that.

        :raises LocalError: ``policy``, when there is nothing to accept.
        """
        if not held.changed_to:
            raise LocalError(Code.POLICY, "no other identity was given for this name")
        person = self.want(held.changed_to)
        name, held.name, held.changed_to = held.name, "", ""
        held.verified = False
        person.before = tuple(one for one in (*held.before, held.id, *person.before) if one != person.id)
        held.before = ()
        if person.name and self._by_name.get(folded(person.name)) is person:
            del self._by_name[folded(person.name)]
        person.name = name
        self._by_name[folded(name)] = person
        self._ledger.person(held)
        self._ledger.person(person)
        return person

    def trust(self, person: Person) -> None:
        """The user has compared the safety number, or has a link."""
        if not (person.verified and person.ours):
            person.verified = person.ours = True
            self._ledger.person(person)

    def strangers(self, now: int) -> list[Person]:
        """Those whom nobody asked for, and whose time is over, or who are too many."""
        found = sorted((one for one in self.all() if not one.ours and not one.asks), key=_last)
        many = max(0, len(found) - MOST_STRANGERS)
        return [*found[:many], *(one for one in found[many:] if now - _last(one) >= STRANGER_LIFE)]

    def forget(self, person: Person) -> None:
        """A stranger is known no more."""
        self._by_id.pop(person.id, None)
        self._begins.pop(person.id, None)
        if person.name and self._by_name.get(folded(person.name)) is person:
            del self._by_name[folded(person.name)]
        self._ledger.no_person(person.id)


def _wait(person: Person, now: int) -> int:
    """How many seconds it is not told yet that somebody begins anew; 0 where the clock was turned back."""
    since = now - person.anew
    return ANEW_EVERY - since if 0 <= since < ANEW_EVERY else 0


def _last(person: Person) -> int:
    """When we last had to do with somebody, Unix seconds."""
    return max(person.heard, person.asked)
