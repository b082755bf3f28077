"""Names for ids that nobody has asked for: what they say is shown once the server has said who they are.

A bundle names itself whatever its owner likes: a name counts when the server, asked for it, gives the same id.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from msgspec.structs import replace

from sims.client import events
from sims.client.events import Contact
from sims.client.lookups import Key
from sims.client.names import can_be_asked, folded

Shown = events.Message | events.Unreadable | events.Connected | events.Disconnected | events.Anew

#: Seconds that events wait for the name.
NAME_TIMEOUT = 2.0
#: So many people's events wait at once, and so many of each; so many without a name are remembered.
MOST_HELD = 32
MOST_EVENTS = 256
MOST_NAMELESS = 1000


class Naming:
    """Holds events back until there is a name for them, or none to be had.

    :param contact: who somebody is by now; ``tell`` takes events; ``want`` asks the server.
    """

    def __init__(
        self,
        *,
        contact: Callable[[str], Contact],
        tell: Callable[[events.Event], None],
        want: Callable[[Key], None],
        clock: Callable[[], float],
    ) -> None:
        self._contact = contact
        self._tell = tell
        self._want = want
        self._clock = clock
        self._held: dict[str, tuple[float, list[Shown]]] = {}  # id -> until when, what
        self._claims: dict[str, set[str]] = {}  # a name -> the ids whose bundles claim it
        self._nameless: OrderedDict[str, None] = OrderedDict()  # asked for in vain: what comes next does not wait again

    def __repr__(self) -> str:
        return f"<events of {len(self._held)} wait for their names>"

    def show(self, event: Shown) -> None:
        """Show what came; of somebody whose name is not known, once the server has been asked for it."""
        person = _contact(event).id
        contact = self._contact(person)
        held = self._held.get(person)
        if held is not None and not contact.name and len(held[1]) < MOST_EVENTS:
            held[1].append(event)
        elif contact.name or person in self._nameless or held is not None or len(self._held) >= MOST_HELD:
            self._release(person)
            self._tell(_with(event, contact))
        else:
            self._held[person] = self._clock() + NAME_TIMEOUT, [event]
            self._want(Key("id", person))

    def tick(self) -> float | None:
        """Let go what has waited for long enough; gives when to be called again."""
        now = self._clock()
        for person in [person for person, (until, _) in self._held.items() if until <= now]:
            self._release(person)
        return min((until for until, _ in self._held.values()), default=None)

    def is_wanted(self, key: Key) -> bool:
        """Whether anything waits for this answer."""
        return key.what in self._held if key.by == "id" else folded(key.what) in self._claims

    def claims(self, person: str, name: str) -> None:
        """Somebody's own bundle says that this is their name: ask the server."""
        if not can_be_asked(name):
            self.settled(person)
            return
        self._claims.setdefault(folded(name), set()).add(person)
        self._want(Key("name", name))

    def answered(self, name: str) -> set[str]:
        """The server was asked for a name, and has answered; gives those who claimed it."""
        return self._claims.pop(folded(name), set())

    def settled(self, person: str) -> None:
        """Somebody has a name now, or will have none."""
        if not self._contact(person).name:
            self._nameless[person] = None
            while len(self._nameless) > MOST_NAMELESS:
                self._nameless.popitem(last=False)
        self._release(person)

    def _release(self, person: str) -> None:
        _, waiting = self._held.pop(person, (0.0, []))
        contact = self._contact(person)
        for event in waiting:
            self._tell(_with(event, contact))


def _contact(event: Shown) -> Contact:
    return event.peer if isinstance(event, events.Connected | events.Disconnected | events.Anew) else event.sender


def _with(event: Shown, contact: Contact) -> Shown:
    if isinstance(event, events.Connected | events.Disconnected | events.Anew):
        return replace(event, peer=contact)
    return replace(event, sender=contact)
