"""What could not be read is asked for again: at most once an hour of one person, and 20 times a day in all."""

from __future__ import annotations

from collections.abc import Callable

from sims.client.lookups import Key
from sims.client.people import People
from sims.client.store import Person

#: Seconds between two questions to one person; questions a day, and those of them that strangers may cause.
ASK_EVERY = 3600
ASKS_A_DAY = 20
OF_STRANGERS = 10
#: So many messages of one person wait to be asked for: what can be asked in the time for which they keep it.
MOST_WAITING = 600
#: So many of those that could not be read are named where something is missing.
MOST_NAMED = 20
#: Somebody whose bundle cannot be had is given up after so many attempts: a relay may lie for a while.
MOST_VAIN = 30 * 24
_DAY = 86_400


class Asking:
    """Which messages to ask whom for, and when.

    :param note: makes a person lasting; ``want`` asks the server for a bundle.
    """

    def __init__(
        self, people: People, *, note: Callable[[Person], None], want: Callable[[Key], None], now: Callable[[], int]
    ) -> None:
        self._people = people
        self._note = note
        self._want = want
        self._now = now
        everybody = people.all()
        self._waiting = {person.id for person in everybody if person.asks}
        self._times = [(person.asked, not person.ours) for person in everybody if person.asked]

    def __repr__(self) -> str:
        return f"<{len(self._waiting)} to ask>"

    def unreadable(self, sender: str, mid: bytes, *, stranger: bool) -> bool:
        """Something of somebody could not be read; gives whether they will be asked for it."""
        person = self._people.get(sender)
        if stranger and (self._of_strangers() >= OF_STRANGERS or (person is not None and self._is_soon(person))):
            return False
        person = person or self._people.meet(sender)
        if len(person.asks) >= (1 if stranger else MOST_WAITING):
            return False
        person.asks = (*person.asks, mid)
        person.unread = (*person.unread, mid)[-MOST_NAMED:]
        self._note(person)
        self._waiting.add(sender)
        return True

    def due(self, person_id: str) -> bytes | None:
        """The mid to ask somebody for now, if there is one."""
        person = self._people.get(person_id)
        if person is None or not person.asks or self._is_soon(person) or self._today() >= ASKS_A_DAY:
            return None
        return person.asks[0]

    def asked(self, person_id: str) -> None:
        """They were."""
        person = self._people.get(person_id)
        if person is not None:
            person.asks, person.asked, person.vain = person.asks[1:], self._now(), 0
            self._times.append((person.asked, not person.ours))
            self._done(person)

    def in_vain(self, person_id: str) -> None:
        """They cannot be asked for anything: nobody has the id, or what the server gives for it is no good.

        That is the server's word: for those whom we know, it is tried again.
        """
        person = self._people.get(person_id)
        if person is not None and person.asks:
            person.asked, person.vain = self._now(), person.vain + 1
            if not (person.ours or person.heard) or person.vain >= MOST_VAIN:
                person.asks, person.vain = (), 0
            self._done(person)

    def tick(self) -> float | None:
        """Look for the bundles of those who are to be asked now; gives the seconds until there are others."""
        now, waits = self._now(), []
        for person_id in sorted(self._waiting):
            person = self._people.get(person_id)
            if person is None:
                self._waiting.discard(person_id)
            elif self.due(person_id) is not None:
                self._want(Key("id", person_id))
            else:
                waits.append(max(60.0, person.asked + ASK_EVERY - now))
        return min(waits, default=None)

    def _done(self, person: Person) -> None:
        self._note(person)
        if not person.asks:
            self._waiting.discard(person.id)

    def _is_soon(self, person: Person) -> bool:
        return 0 <= self._now() - person.asked < ASK_EVERY

    def _today(self) -> int:
        now = self._now()
        self._times = [(when, stranger) for when, stranger in self._times if now - when < _DAY]
        return len(self._times)

    def _of_strangers(self) -> int:
        self._today()
        waiting = (self._people.get(person_id) for person_id in self._waiting)
        asked = sum(1 for _, stranger in self._times if stranger)
        return asked + sum(1 for person in waiting if person is not None and not person.ours)
