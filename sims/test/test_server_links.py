"""The invitation of a server's links lasts until it is spent, over the server's end too."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from sims.crypto.identity import Address, ServerLink
from sims.server.folder import Folder
from sims.server.invitations import Links
from sims.server.registration import Mode, hashed
from sims.test.late_store import LateStore
from sims.test.modern_builders import Counting, person
from sims.test.store_contract import EVE, account

PLACES = [(Address("a.example", 1), True)]


class LinkTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.store = LateStore()
        self.entropy = Counting()
        self.told: list[str | None] = []

    def links(self, last: str | None, mode: Mode = Mode.INVITE) -> Links:
        def told(links: list[ServerLink]) -> None:
            self.told.append(links[0].invite)

        return Links(self.store, person("server").id, mode, self.entropy, told, last)  # type: ignore[arg-type]

    def begin(self, last: str | None, mode: Mode = Mode.INVITE) -> Links:
        links = self.links(last, mode)
        links.begin(PLACES)
        self.store.settle()
        return links

    def spend(self, invitation: str, number: str = EVE) -> None:
        self.store.register(account(number, f"n{number}"), hashed(invitation), lambda _: None)
        self.store.settle()

    def unspent(self) -> int:
        return len(self.store.stored._invitations)

    def test_the_last_one_stays(self) -> None:
        """A server that begins anew goes on with its invitation; however often, there is but one."""
        self.begin(None)
        first = self.told[0]
        for _ in range(3):
            self.begin(first)
        self.assertEqual(self.told, [first] * 4)
        self.assertEqual(self.unspent(), 1)

    def test_a_spent_or_unknown_one_does_not(self) -> None:
        self.begin(None)
        first = self.told[0] or ""
        self.spend(first)
        for last in (first, "never-given-out"):
            self.begin(last)
            self.assertNotEqual(self.told[-1], last)
            self.assertIsNotNone(self.told[-1])

    def test_only_where_invitations_are_asked_for(self) -> None:
        self.begin(None)
        self.begin(self.told[0], Mode.OPEN)
        self.assertIsNone(self.told[-1])

    def test_somebody_elses_changes_nothing(self) -> None:
        """An invitation of the operator's is spent: the links stay as they are, and nothing is told."""
        links = self.begin(None)
        links.spent()
        self.store.settle()
        self.assertEqual(len(self.told), 1)

    def test_one_new_for_one_spent(self) -> None:
        """Told twice at the same time that one was spent, it makes a single new one."""
        links = self.begin(None)
        self.spend(self.told[0] or "")
        links.spent()
        links.spent()
        self.store.settle()
        self.assertEqual(len(self.told), 2)
        self.assertEqual(self.unspent(), 1)


class FolderTests(SynchronousTestCase):
    """The invitation is read from the file of the link."""

    def test_invitation(self) -> None:
        path = Path(self.mktemp())
        path.mkdir()
        folder = Folder(path)
        self.assertIsNone(folder.invitation())
        link = ServerLink((Address("a.example", 1),), person("server").id, "an-invitation")
        folder.write_link(str(link))
        self.assertEqual(folder.invitation(), "an-invitation")
        for unreadable in (b"", b"\xff\xfe", b"nonsense\n", str(link).encode()[:30]):
            (path / "link").write_bytes(unreadable)
            self.assertIsNone(folder.invitation(), unreadable)
