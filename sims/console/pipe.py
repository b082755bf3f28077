"""The console on standard input and output: lines in, lines out."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import cast

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IConsumer,
    IDelayedCall,
    IHalfCloseableProtocol,
    IPullProducer,
    IPushProducer,
    IReactorTime,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.stdio import StandardIO
from twisted.python.failure import Failure
from zope.interface import implementer

from sims.console.commands import MAX_LINE
from sims.console.shell import Shell

#: Reading pauses while more than so many messages wait to be sent, and how often it is looked again (seconds).
MAX_BACKLOG = 256
_LOOK = 0.02
#: While more bytes than these wait for the operating system to take them, nothing is taken from the server.
MAX_OUTSTANDING = 65_536
#: Seconds that leaving waits for the output to be read.
CLOSE_TIMEOUT = 1.0


@implementer(IPullProducer)
class _Output:
    """Hears when standard output has taken what was written: only then is a pull producer asked for more."""

    def __init__(self, pipe: Pipe) -> None:
        self._pipe = pipe

    def resumeProducing(self) -> None:
        self._pipe.output_taken()

    def stopProducing(self) -> None:
        pass


@implementer(IHalfCloseableProtocol)
class Pipe(Protocol):
    """Reads commands line by line, and writes lines in batches, one for each turn of the reactor.

    :param blocked: called with whether the output is behind.
    :param gone: called when nobody reads the output any more.
    """

    def __init__(
        self,
        shell: Callable[[Pipe], Shell],
        clock: IReactorTime,
        *,
        blocked: Callable[[bool], None],
        gone: Callable[[], None],
    ) -> None:
        self.shell = shell(self)
        self._clock = clock
        self._blocked = blocked
        self._gone = gone
        self._partial = bytearray()
        self._skipping = False
        self._waiting: deque[bytes] = deque()  # lines not yet run
        self._look: IDelayedCall | None = None
        self._input_over = False
        self._paused = False
        self._batch: list[str] = []
        self._unwritten: list[Deferred[bool]] = []  # of the batch
        self._untaken: list[Deferred[bool]] = []  # of what was written, and is not with the operating system
        self._outstanding = 0  # bytes of that
        self._flushed: Deferred[None] | None = None
        self._closed = False
        self._patience: IDelayedCall | None = None

    # --- input ---

    def connectionMade(self) -> None:
        cast("IConsumer", self.transport).registerProducer(_Output(self), False)

    def dataReceived(self, data: bytes) -> None:
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._partial += line
            if self._skipping or len(self._partial) > MAX_LINE:
                self._waiting.append(b"")
                if not self._skipping:
                    self.shell.too_long()
            else:
                self._waiting.append(bytes(self._partial))
            self._partial.clear()
            self._skipping = False
        self._partial += rest
        if len(self._partial) > MAX_LINE:
            self._partial.clear()
            if not self._skipping:
                self.shell.too_long()
            self._skipping = True
        self._run()

    def readConnectionLost(self) -> None:
        """End of input, as StandardIO tells it to a half-closeable protocol."""
        self._input_over = True
        if self._partial:
            self._waiting.append(bytes(self._partial))
            self._partial.clear()
        self._run()

    def _run(self) -> None:
        with self.shell.together():
            while self._waiting and (self._input_over or self.shell.backlog <= MAX_BACKLOG):
                self.shell.line(self._waiting.popleft())
        if self._input_over:
            self.shell.end_of_input()
            return
        transport = cast("IPushProducer", self.transport)
        if self._waiting and not self._paused:
            self._paused = True
            transport.pauseProducing()
        elif self._paused and not self._waiting:
            self._paused = False
            transport.resumeProducing()
        if self._waiting and self._look is None:
            self._look = self._clock.callLater(_LOOK, self._look_again)

    def _look_again(self) -> None:
        self._look = None
        self._run()

    # --- output ---

    def write(self, text: str) -> Deferred[bool]:
        """Write one line or more; fires when the operating system has them, or with False when it never will."""
        if self._closed:
            return succeed(False)
        if not self._batch:
            self._clock.callLater(0, self._flush)
        self._batch.append(text)
        done: Deferred[bool] = Deferred()
        self._unwritten.append(done)
        return done

    def writeConnectionLost(self) -> None:
        """Nobody reads the output any more."""
        self._closed = True
        self._never()
        self._gone()

    def connectionLost(self, reason: Failure | None = None) -> None:
        was_closed, self._closed = self._closed, True
        self._never()
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._flushed is not None:
            self._flushed.callback(None)
            self._flushed = None
        elif not was_closed:
            self._gone()

    def output_taken(self) -> None:
        """The operating system has everything that was written."""
        behind = self._outstanding > MAX_OUTSTANDING
        taken, self._untaken, self._outstanding = self._untaken, [], 0
        for done in taken:
            done.callback(True)
        if behind:
            self._blocked(False)

    def _never(self) -> None:
        """What is not with the operating system will not be."""
        lost, self._untaken, self._unwritten = self._untaken + self._unwritten, [], []
        for done in lost:
            done.callback(False)

    def close(self) -> Deferred[None]:
        """Write what is left; fires when it is out."""
        done: Deferred[None] = Deferred()
        if self._closed:
            done.callback(None)
            return done
        if self._look is not None:
            self._look.cancel()
            self._look = None
        self._flush()
        self._flushed = done
        cast("IConsumer", self.transport).unregisterProducer()
        cast("ITransport", self.transport).loseConnection()
        self._patience = self._clock.callLater(CLOSE_TIMEOUT, self._give_up)
        return done

    def _give_up(self) -> None:
        """Nobody reads the output: leave without."""
        self._patience = None
        self._closed = True
        self._never()
        if self._flushed is not None:
            flushed, self._flushed = self._flushed, None
            flushed.callback(None)

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        if batch and not self._closed:
            data = ("\n".join(batch) + "\n").encode("utf-8", "replace")
            before, self._outstanding = self._outstanding, self._outstanding + len(data)
            self._untaken += self._unwritten
            self._unwritten = []
            cast("ITransport", self.transport).write(data)
            if before <= MAX_OUTSTANDING < self._outstanding:
                self._blocked(True)


def open_pipe(shell: Callable[[Pipe], Shell], clock: IReactorTime, *, gone: Callable[[], None]) -> Pipe:
    """The pipe on this process's standard input and output; what reads the output slows down what is received."""

    def blocked(is_blocked: bool) -> None:
        client = pipe.shell.client
        if client is not None:
            client.hold_reading() if is_blocked else client.release_reading()

    pipe = Pipe(shell, clock, blocked=blocked, gone=gone)
    StandardIO(pipe)
    return pipe
