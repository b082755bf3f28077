"""The console on a terminal."""

from __future__ import annotations

import signal

from tests.processes import ProcessTestCase
from tests.talk import next_event
from tests.terminal import TerminalConsole


class TerminalTests(ProcessTestCase):
    """The console on a terminal, with a line to edit."""

    def setUp(self) -> None:
        super().setUp()
        self.server = self.start_server()

    def start_terminal(self, command: tuple[str, ...] = ("sims-client",)) -> TerminalConsole:
        """A console on a terminal, which is ready."""
        console = TerminalConsole(self.place, self.server.port, "ann", "--id", "7", command=command)
        self.addCleanup(console.close)
        console.see("* ready as ann (7)")
        self.assertFalse(console.restored, "a line editor reads every key")
        return console

    def check_left(self, console: TerminalConsole, *statuses: int) -> None:
        """It has left, and the terminal is as it was."""
        status = console.wait_exit()
        self.assertIn(status, statuses, console.shown)
        self.assertTrue(console.restored, "the terminal is as it was")
        for on, off in ((b"\x1b[?2004h", b"\x1b[?2004l"), (b"\x1b[?25l", b"\x1b[?25h"), (b"\x1b[?7l", b"\x1b[?7h")):
            self.assertGreater(console.raw.rfind(off), console.raw.rfind(on), f"{off!r} is the last")
        self.assertEqual(console.errors(), "")

    def test_conversation(self) -> None:
        """What is typed is done, what arrives is shown above the line that is being typed; Ctrl-D leaves."""
        bob = self.start_console(self.server.port, "bob", "--id", "8").ready()
        ann = self.start_terminal()
        ann.type("list\r")
        ann.see("* connected to the server: ann (7), bob (8)")
        ann.type("/send 8 grüß dich\r")
        self.assertEqual(bob.take("message")["text"], "grüß dich")
        ann.see("* conversation with bob (8) [unauthenticated]")
        ann.see("* delivered to bob (8)")
        ann.type("send-8-half of a ")
        ann.see("half of a")
        bob.do("send", to="7", text="\x1b[2Jhello\x07\x1b]0;title\x07")
        ann.see("bob (8) [unauthenticated]: [2Jhello]0;title")
        self.assertNotIn(b"\x1b[2J", ann.raw)
        self.assertNotIn(b"\x07", ann.raw)
        ann.type("text\r")
        self.assertEqual(bob.take("message")["text"], "half of a text")
        ann.see("* delivered to bob (8)")
        ann.type("\x04")
        self.check_left(ann, 0)
        self.server.check_log()

    def test_interrupt(self) -> None:
        """Ctrl-C leaves at once, whatever is typed and under way."""
        self.start_peer(self.server.port, "bob", 8)
        ann = self.start_terminal()
        ann.type("/send 8 never acknowledged\rand half a line")
        ann.see("and half a line")
        ann.type("\x03")
        self.check_left(ann, 130)

    def test_interrupt_twistd(self) -> None:
        """So it does under twistd, which has its own exit status."""
        ann = self.start_terminal(("twistd", "-n", "sims-client"))
        ann.type("\x03")
        self.check_left(ann, 0, 130)

    def test_quit(self) -> None:
        """``/quit`` leaves."""
        ann = self.start_terminal()
        ann.type("/quit\r")
        self.check_left(ann, 0)

    def test_signals(self) -> None:
        """Signals from outside end it."""
        for number in (signal.SIGTERM, signal.SIGINT):
            ann = self.start_terminal()
            ann.popen.send_signal(number)
            self.check_left(ann, -number)

    def test_hang_up(self) -> None:
        """A terminal that goes away ends it."""
        ann = self.start_terminal()
        ann.hang_up()
        self.assertIn(ann.wait_exit(), (1, -signal.SIGHUP))
        self.assertNotIn("Traceback", ann.errors())

    def test_end_of_input_waits(self) -> None:
        """After Ctrl-D, what is under way is waited for; what cannot be done is said."""
        bob = self.start_peer(self.server.port, "bob", 8)
        ann = self.start_terminal()
        ann.type("/send 8 hello\r")
        next_event(bob, "phase", 7)
        ann.type("\x04")
        text = next_event(bob, "text", 7)
        self.assertEqual(text[2], "hello")
        self.check_left(ann, 0)
        ann.see("* delivered to bob (8)")

    def test_much_output(self) -> None:
        """Much that arrives at once is all shown, in order."""
        bob = self.start_console(self.server.port, "bob", "--id", "8").ready()
        ann = self.start_terminal()
        for number in range(300):
            bob.do("send", to="7", text=f"text {number}.")
        bob.take_many(300, "state", state="delivered")
        for number in range(300):
            ann.see(f"bob (8) [unauthenticated]: text {number}.")
        ann.type("\x04")
        self.check_left(ann, 0)
