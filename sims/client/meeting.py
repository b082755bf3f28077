"""Bundles that come, or do not: names and ids that belong together, sessions that are begun, conversations opened."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET

from sims import inner
from sims.client import events
from sims.client.desk import Desk, Ref
from sims.client.lookups import Key
from sims.client.publishing import Publishing
from sims.client.reading import Reading
from sims.crypto import payloads
from sims.crypto.prekeys import Bundle, OneTimeKey, check_bundle
from sims.errors import Code, PeerError


class Meeting:
    """Takes the server's answers to lookups, for one user."""

    def __init__(self, desk: Desk, reading: Reading, publishing: Publishing, now: Callable[[], int]) -> None:
        self._desk = desk
        self._reading = reading
        self._publishing = publishing
        self._now = now
        self._opening: dict[Key, list[Ref]] = {}  # connects that wait

    def __repr__(self) -> str:
        return "<meeting>"

    @property
    def under_way(self) -> int:
        """How many connects wait for a bundle."""
        return sum(len(refs) for refs in self._opening.values())

    def open(self, key: Key, ref: Ref) -> None:
        """Somebody is to be connected to."""
        self._opening.setdefault(key, []).append(ref)
        self._desk.lookups.want(key)

    def bundle(self, key: Key, data: inner.BundleData) -> None:
        """Somebody's bundle has come."""
        try:
            bundle = payloads.decode(Bundle, bytes(data.bundle))
            one_time = None if data.one_time_key is UNSET else payloads.decode(OneTimeKey, bytes(data.one_time_key))
            expected = key.what if key.by == "id" else None
            person_id = check_bundle(bundle, now=self._now(), expected=expected)
            if key.by == "name" and bundle.name.casefold() != key.what.casefold():
                raise PeerError(Code.NOT_AUTHENTICATED, "a bundle of another name than was asked for")
            if self._publishing.took_own(person_id, bundle, self._now()):
                self._desk.lookups.forget(key)
                return
            self._met(key, bundle, one_time)
        except PeerError as error:
            # The server may give another one later: what waits for it is not lost.
            self._desk.lookups.later(key)
            self._desk.events.append(events.Problem(code=error.code, text=f"a bundle that is refused: {error.text}"))

    def _met(self, key: Key, bundle: Bundle, one_time: OneTimeKey | None) -> None:
        person = self._desk.people.learn(bundle.identity)
        self._desk.people.name(person, bundle.name)
        self._desk.tell_changes()
        self._reading.named(person.id)
        taken = self._desk.people.named(bundle.name)
        if key.by == "name" and taken is not None and taken is not person:
            self._desk.lookups.forget(key)
            for letter in self._desk.outbox.nameless(key.what):
                self._desk.fail(letter, Code.POLICY)
            self._not_opened(key, Code.POLICY, "the identity behind this name has changed")
            return
        for letter in self._desk.outbox.nameless(key.what) if key.by == "name" else ():
            letter.to = person.id
            self._desk.outbox.note(letter)
        opening = self._opening.get(key, [])
        letters = self._desk.outbox.unsealed(person.id)
        asks = self._reading.asks(person.id)
        if asks is not None:
            self._desk.talks.ask_again(person.id, asks, self._desk.talks.start(bundle, one_time, person.id))
            self._reading.asked(person.id)
        elif (opening or letters) and self._desk.talks.needs_bundle(person.id):
            self._desk.talks.start(bundle, one_time, person.id)
            self._desk.connected(person.id, confirmed=False, refs=opening)
            if not letters:
                self._desk.talks.greet(person.id)
        elif opening:
            self._desk.connected(person.id, confirmed=False, refs=opening)
        self._opening.pop(key, None)
        self._desk.lookups.forget(key)
        if letters:
            self._desk.forward(letters[0])

    def no_bundle(self, key: Key, code: Code, after: float | None) -> None:
        if code is not Code.UNKNOWN_RECIPIENT:
            self._desk.lookups.later(key, after)
            return
        self._desk.lookups.forget(key)
        if self._publishing.no_own(key.what, self._now()):
            return
        waiting = self._desk.outbox.unsealed(key.what) if key.by == "id" else self._desk.outbox.nameless(key.what)
        for letter in waiting:
            self._desk.fail(letter, code)
        self._not_opened(key, code, "nobody has this id or name")
        self._reading.named(key.what)
        person = self._desk.people.get(key.what)
        if key.by == "id" and person is not None and person.name:
            self._desk.lookups.want(Key("name", person.name))  # somebody else may have it now

    def _not_opened(self, key: Key, code: Code, text: str) -> None:
        for ref in self._opening.pop(key, ()):
            self._desk.events.append(events.Problem(code=code, text=text, ref=ref))
