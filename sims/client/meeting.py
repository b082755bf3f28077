"""Bundles that come, or do not: names and ids that belong together, sessions that are begun, conversations opened."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import UNSET

from sims import inner
from sims.client.desk import Desk, Ref
from sims.client.events import Delivery
from sims.client.lookups import Key
from sims.client.names import folded
from sims.client.publishing import Publishing
from sims.client.reading import Reading
from sims.client.store import Letter
from sims.crypto import payloads
from sims.crypto.prekeys import Bundle, OneTimeKey, check_bundle
from sims.errors import Code, LocalError, PeerError

_CHANGED = "the identity behind this name has changed; accept-identity takes the new one"


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

    # --- a bundle -----------------------------------------------------------------------------------------------------

    def bundle(self, key: Key, data: inner.BundleData) -> None:
        """Somebody's bundle has come."""
        try:
            bundle = payloads.decode(Bundle, bytes(data.bundle))
            one_time = None if data.one_time_key is UNSET else payloads.decode(OneTimeKey, bytes(data.one_time_key))
            own = key.what == self._desk.id and self._publishing.waits
            # One's own counts whatever its end: it is the version that is wanted.
            person_id = check_bundle(
                bundle, now=0 if own else self._now(), expected=key.what if key.by == "id" else None
            )
            if key.by == "name" and folded(bundle.name) != folded(key.what):
                raise PeerError(Code.NOT_AUTHENTICATED, "a bundle of another name than was asked for")
            if own:
                self._desk.lookups.forget(key)
                self._publishing.took_own(bundle, self._now())
            elif person_id == self._desk.id:
                self._desk.lookups.forget(key)
                self._give_up(key, Code.POLICY, "that is your own identity")
            else:
                self._met(key, bundle, one_time)
        except PeerError as error:
            if error.code is Code.NO_COMMON_SPEC:  # signed by them: the server has no part in it
                self._desk.lookups.forget(key)
                for letter in self._letters(key):
                    if letter.state is Delivery.QUEUED:  # what was accepted is as it was before
                        self._desk.problem(error.code, error.text, self._desk.refs.get(letter.number))
                self._give_up(key, error.code, error.text)
                self._let_be(key)
            else:
                self._refused(key, error)
        except LocalError as error:
            self._desk.lookups.forget(key)
            self._desk.problem(error.code, error.text)
            self._give_up(key, error.code, error.text)

    def _refused(self, key: Key, error: PeerError) -> None:
        """What the server gave is no good. It may give another one later: what the user waits for is not lost."""
        self._desk.problem(error.code, f"a bundle that is refused: {error.text}")
        owes = key.by == "id" and self._reading.needs_session(key.what)
        if self._is_wanted(key) or owes or (key.what == self._desk.id and self._publishing.waits):
            self._desk.lookups.later(key)
        else:
            self._desk.lookups.forget(key)
        self._let_be(key)

    def _met(self, key: Key, bundle: Bundle, one_time: OneTimeKey | None) -> None:
        desk = self._desk
        person_id = bundle.identity.id
        wanted = self._is_wanted(key)
        held = desk.people.named(bundle.name) if key.by == "name" else None
        if wanted or held is not None:
            desk.people.meet(person_id)
        claimed = self._reading.naming.answered(key.what) if key.by == "name" else set()
        known = desk.people.get(person_id)
        if known is not None:
            desk.people.learn(bundle.identity)
            if key.by == "name":
                # That this id has this name is the server's word, now that it was asked.
                desk.people.name(known, bundle.name)
                desk.tell_changes()
        for other in {*claimed, *({person_id} if key.by == "name" else ())}:
            self._reading.naming.settled(other)
        if key.by == "id" and known is not None and not known.name:
            self._reading.naming.claims(person_id, bundle.name)
        if held is not None and held.id != person_id:
            desk.lookups.forget(key)
            self._give_up(key, Code.POLICY, _CHANGED)
            return
        if wanted:
            desk.people.want(person_id)
        for letter in desk.outbox.nameless(key.what) if key.by == "name" else ():
            letter.to = person_id
            desk.outbox.note(letter)
        self._begin(key, person_id, bundle, one_time)

    def _begin(self, key: Key, person: str, bundle: Bundle, one_time: OneTimeKey | None) -> None:
        """Begin a session, if there is a reason to."""
        desk = self._desk
        waits = key in self._opening or desk.outbox.unsealed(person)
        started = False
        mid = self._reading.asking.due(person)
        if mid is not None:
            session = desk.talks.start(bundle, one_time, person)
            desk.talks.ask_again(person, mid, session)
            self._reading.asking.asked(person)
            self._reading.asked_for(person, mid)
        elif desk.talks.needs_bundle(person) and (waits or self._reading.needs_session(person)):
            desk.talks.start(bundle, one_time, person)
            started = True
            if not desk.outbox.unsealed(person) and not self._reading.needs_session(person):
                desk.talks.greet(person)
        desk.lookups.forget(key)
        opening = self._opening.pop(key, None)
        conversation = desk.talks.find(person)
        known = desk.people.get(person)
        if known is not None and known.renewed and not desk.talks.needs_bundle(person):
            known.renewed = False
            desk.ledger.person(known)
        if conversation is not None and (started or opening):
            desk.connected(person, confirmed=conversation.confirmed, refs=opening or ())
        desk.seal(person)
        self._reading.may_send(person)

    # --- none ---------------------------------------------------------------------------------------------------------

    def no_bundle(self, key: Key, code: Code, after: float | None) -> None:
        """The server gives none."""
        if code is not Code.UNKNOWN_RECIPIENT:
            self._desk.lookups.later(key, after)
            return
        self._desk.lookups.forget(key)
        if key.what == self._desk.id and self._publishing.waits:
            self._publishing.took_own(None, self._now())
            return
        self._give_up(key, code, "nobody has this id or name")
        self._let_be(key)
        if key.by == "id":
            self.gone(key.what)

    def gone(self, person_id: str) -> None:
        """The server knows an id no more. Somebody else may have its name now, which the user has to know."""
        person = self._desk.people.get(person_id)
        if person is not None and person.name and person.ours:
            self._desk.lookups.want(Key("name", person.name))

    def _is_wanted(self, key: Key) -> bool:
        """Whether the user waits for it."""
        return key in self._opening or bool(self._letters(key))

    def _letters(self, key: Key) -> list[Letter]:
        outbox = self._desk.outbox
        if key.by == "id":
            return outbox.unsealed(key.what)
        held = self._desk.people.named(key.what)
        return outbox.nameless(key.what) + ([] if held is None else outbox.unsealed(held.id))

    def _give_up(self, key: Key, code: Code, text: str) -> None:
        """Nothing that waits for this can be done."""
        for letter in self._letters(key):
            self._desk.fail(letter, code)
        for ref in self._opening.pop(key, ()):
            self._desk.problem(code, text, ref)

    def _let_be(self, key: Key) -> None:
        """What does without: a question, a name that is only shown."""
        if key.by == "id":
            self._reading.asking.in_vain(key.what)
            self._reading.naming.settled(key.what)
        else:
            for person in self._reading.naming.answered(key.what):
                self._reading.naming.settled(person)
