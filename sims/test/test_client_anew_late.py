"""What somebody says begins anew, on a session that was begun before others, of which their new store knows nothing."""

from __future__ import annotations

from sims import inner
from sims.client import events
from sims.errors import Code
from sims.test.modern_world import WorldTestCase, refusal


class LateTests(WorldTestCase):
    def test_a_phase_that_comes_late(self) -> None:
        """A phase 1 waits while another session is begun, spoken on, and lost with bob's store; then it arrives, and
        his new store answers. What was lost on the newer session comes all the same."""
        ann, bob = self.world.users("ann", "bob")
        self.talk(ann, bob)
        full = True

        def take(src: str, message: inner.FromClient) -> inner.FromServer | bool:
            first = isinstance(message, inner.ClientConnect) and message.phase == 1
            if src == ann.id and full and first and isinstance(message, inner.ClientConnect):
                letter = ann.messenger._desk.outbox.carried_by(message.mid)
                if letter is not None and letter.is_quiet:
                    return refusal(message.mid, Code.MAILBOX_FULL)
            return False

        self.world.intercept(take)
        ann.client.act(lambda messenger: messenger.disconnect("bob"))
        self.world.run_for(2)
        ann.client.act(lambda messenger: messenger.connect("bob"))
        self.world.run_for(2)
        copy = bob.store.copy()
        for _ in range(2):
            bob.cut()
            self.world.run_for(1)
        bob.send("ann", "on a newer session")
        self.world.run_for(1)
        self.patch(bob.messenger._reading, "may_send", lambda _: None)
        lost = ["lost 0", "lost 1"]
        for text in lost:
            ann.send("bob", text, text)
            self.world.run_for(1)
        bob.kill()
        self.world.settle()
        self.assertEqual(bob.texts()[-2:], lost)
        before = len(bob.texts())
        bob.use(copy)
        bob.start()
        self.world.run_for(1)
        full = False
        self.world.run_for(40)
        bob.send("ann", "hi again")
        self.world.run_for(20)
        self.assertEqual(len(ann.all(events.Anew)), 1)
        self.assertEqual(bob.texts()[before:], lost)
        self.assertEqual([ann.states(text)[-1] for text in lost], ["delivered"] * 2)
