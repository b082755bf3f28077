"""Commands to the client, events to lines: what the pipe and the terminal have in common."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from sims.client import events
from sims.client.connection import SeedClient
from sims.client.events import Delivery
from sims.client.messenger import Messenger
from sims.client.modern_connection import Client
from sims.console import commands, view
from sims.errors import Code, LocalError, SimsError

#: Seconds that leaving waits for what is under way; how often it looks.
LEAVE_TIMEOUT = 10.0
_LOOK = 0.05
_ASK_SURE = (
    "? The server forgets you, and what waits for you there; your name is free for others. What is kept here stays.\n"
    "? Type '/delete-account yes' to do it."
)


class Shell:
    """Runs commands and shows events.

    :param write: takes one line or more, without the last newline; gives a Deferred that fires when they are out, with
        whether they are, or None where they are at once.
    :param leave: called once, with the exit status, when it is over.
    """

    def __init__(
        self,
        *,
        json: bool,
        clock: IReactorTime,
        write: Callable[[str], Deferred[bool] | None],
        leave: Callable[[int], None],
    ) -> None:
        self.json = json
        self.client: SeedClient | Client | None = None
        self._clock = clock
        self._write = write
        self._leave = leave
        self._leaving_since: float | None = None
        self._failed = False  # a text was not delivered, or something asked for at the end was not done
        self._look: IDelayedCall | None = None

    def show(self, event: events.Event) -> Deferred[bool] | None:
        """Show an event; gives when it is out, as :obj:`~sims.client.driver_shown.OnEvent`."""
        match event:
            case events.State(state=Delivery.FAILED):
                self._failed = True
            case events.Problem() if self._leaving_since is not None:
                self._failed = True
        text = view.to_json(event) if self.json else view.to_text(event)
        out = None if text is None else self._write(text)
        client = self.client
        gave_up = isinstance(client, Client) and client.gave_up
        if isinstance(event, events.Problem) and gave_up and self._leaving_since is None:
            # Nothing that could be typed would help.
            self._leaving_since = self._clock.seconds()
            self._leave(1)
        elif isinstance(event, events.AccountDeleted) and self._leaving_since is None:
            self._leaving_since = self._clock.seconds()
            self._leave(0)
        return out

    def line(self, line: bytes) -> None:
        """Run the command in one line of input; what is wrong with it is shown."""
        ref: commands.Ref = None
        try:
            if self.json:
                if not line.strip():
                    return
                ref = commands.ref_of(line)
                command: commands.Command | None = commands.parse_json(line)
            else:
                command = commands.parse_text(_decoded(line))
            if command is not None:
                if not isinstance(command, commands.Send):  # of which many may come at once
                    self._catch_up()
                self.run(command)
        except SimsError as error:
            self._catch_up()
            self.show(events.Problem(code=error.code, text=error.text, ref=ref))

    def _catch_up(self) -> None:
        """What comes of earlier lines is shown before what comes of this one."""
        if self.client is not None:
            self.client.flush()

    def too_long(self) -> None:
        """A line of input was longer than is taken."""
        text = f"a line of more than {commands.MAX_LINE} bytes"
        self.show(events.Problem(code=Code.TOO_LARGE, text=text))

    def run(self, command: commands.Command) -> None:
        """Run a command.

        :raises SimsError: what is wrong with it.
        """
        client = self.client
        if client is None or self._leaving_since is not None:
            return
        ref, messenger = command.ref, client.messenger
        match command:
            case commands.ListClients():
                client.run(lambda: messenger.list(ref))
            case commands.Connect(to=to):
                client.run(lambda: messenger.connect(_recipient(to), ref))
            case commands.Send(to=to, text=text):
                client.run(lambda: messenger.send(_recipient(to), text, ref))
            case commands.Disconnect(to=to):
                client.run(lambda: messenger.disconnect(_recipient(to), ref))
            case commands.ListConnected():
                contacts = messenger.conversations()
                self._write(view.conversations_to_text(contacts, authenticated=isinstance(messenger, Messenger)))
            case commands.Help():
                self._write(commands.HELP if isinstance(messenger, Messenger) else commands.SEED_HELP)
            case commands.Quit():
                self.end_of_input()
            case _ if isinstance(messenger, Messenger):
                self._run_modern(client, messenger, command)
            case _:
                raise LocalError(
                    Code.POLICY, "the seed's format has nothing of the kind: nobody is authenticated there"
                )

    def _run_modern(self, client: SeedClient | Client, messenger: Messenger, command: commands.Command) -> None:
        ref = command.ref
        match command:
            case commands.OwnLink():
                client.run(lambda: messenger.own_link(ref))
            case commands.Verify(to=to):
                client.run(lambda: messenger.verify(_recipient(to), ref))
            case commands.Trust(to=to):
                client.run(lambda: messenger.trust(_recipient(to), ref))
            case commands.AcceptIdentity(to=to):
                client.run(lambda: messenger.accept_identity(_recipient(to), ref))
            case commands.History(to=to, limit=limit, before=before):
                client.run(lambda: messenger.history(_recipient(to), limit, before, ref))
            case commands.Search(text=text, limit=limit):
                client.run(lambda: messenger.search(text, limit, ref))
            case commands.Why(id=number):
                client.run(lambda: messenger.why(number, ref))
            case commands.Delete(to=to):
                client.run(lambda: messenger.delete(_recipient(to), ref))
            case commands.About():
                client.run(lambda: messenger.about(ref))
            case commands.DeleteAccount():
                client.run(lambda: messenger.delete_account(ref))
            case commands.AskDeleteAccount():
                self._write(_ASK_SURE)

    def end_of_input(self) -> None:
        """Nothing more will be asked for: wait for what is under way, then leave."""
        if self._leaving_since is None:
            self._leaving_since = self._clock.seconds()
            self._see_whether_done()

    def stop(self) -> None:
        """Wait for nothing any more."""
        if self._look is not None:
            self._look.cancel()
            self._look = None

    def together(self) -> AbstractContextManager[None]:
        """Around commands that come at once: as :meth:`~sims.client.driver.Driver.together`."""
        return nullcontext() if self.client is None else self.client.together()

    @property
    def backlog(self) -> int:
        """How much of what was asked for waits to be sent: what reads the input slows down by it."""
        return self.client.messenger.unsent if self.client is not None else 0

    def _see_whether_done(self) -> None:
        self._look = None
        client, since = self.client, self._leaving_since
        if isinstance(client, Client):
            client.run(client.messenger.leave)
        under_way = client.messenger.under_way if client is not None else 0
        if since is None:
            return
        if under_way and self._clock.seconds() - since < LEAVE_TIMEOUT:
            self._look = self._clock.callLater(_LOOK, self._see_whether_done)
            return
        if under_way:
            text = f"left with {under_way} of what was asked for not done"
            self.show(events.Problem(code=Code.UNAVAILABLE, text=text))
        self._leave(1 if under_way or self._failed else 0)


def _recipient(to: str | int) -> str:
    text = str(to).strip()
    if not text:
        raise LocalError(Code.MALFORMED, "an empty recipient")
    return text


def _decoded(line: bytes) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        raise LocalError(Code.MALFORMED, "a line that is not UTF-8") from None
