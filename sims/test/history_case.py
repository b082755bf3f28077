"""Two people whose history is looked at, through the real server in memory."""

from __future__ import annotations

from typing import Any

from sims.client import events
from sims.client.events import Said
from sims.errors import Code, LocalError
from sims.test.modern_world import User, WorldTestCase


def texts(messages: tuple[Said, ...]) -> list[str]:
    """What was said."""
    return [message.text for message in messages]


class HistoryTestCase(WorldTestCase):
    """Ann and bob are connected."""

    def setUp(self) -> None:
        super().setUp()
        self.ann, self.bob = self.world.users("ann", "bob")

    def history(self, user: User, to: str | User, limit: int = 50, before: str | None = None) -> tuple[Said, ...]:
        name = to if isinstance(to, str) else to.id
        return self.successResultOf(user.client.history(name, limit, before))

    def search(self, user: User, text: str) -> list[str]:
        return texts(self.successResultOf(user.client.search(text)))

    def why(self, user: User, number: str) -> events.Why:
        return self.successResultOf(user.client.why(number))

    def refused(self, waiting: Any, code: Code) -> None:
        self.assertEqual(self.failureResultOf(waiting, LocalError).value.code, code)

    def say(self, sender: User, to: User, *said: str) -> None:
        """Texts that arrive."""
        for text in said:
            sender.send(to, text)
            self.until(lambda text=text: to.texts(sender)[-1:] == [text])  # type: ignore[misc]
        self.world.run_for(1)

    def lose(self, user: User, other: User) -> None:
        """Somebody loses the sessions with somebody else, and does not know."""
        user.restart(user.store.copy())
        self.world.settle()
        user.messenger._desk.talks.forget(other.id)
