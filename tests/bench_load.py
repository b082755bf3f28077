"""The load of ``python -m tests.bench seed``: pairs of clients on real sockets; only their own hop is sealed."""

from __future__ import annotations

import statistics
import time
from collections import deque

from twisted.internet import reactor
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.task import deferLater, react

from sims import messages, wire
from sims.crypto.primitives import SystemEntropy
from sims.crypto.seed import End, Initiator, Keys, Session, TrialOrder
from sims.specs import CipherSpec
from sims.strictjson import Octets32, Pem
from sims.transport import FrameReceiver
from tests.bench import FloorTimer, Slice, ack_message, com_message, cpu_of

#: Seconds: before anything is measured, of each slice of the load, before each slice, and after it.
WARM_UP = 0.5
SLICE = 0.5
SETTLE = 0.05
REST = 0.2


class Trials:
    """Counts the further trials that the server needed to find its pair, from what its client can see.

    The server acknowledges a frame at once, so the secure frames before an acknowledgement are those that it had sent
    when it looked for the pair.
    """

    def __init__(self) -> None:
        self.count = 0
        self._used: deque[int] = deque()  # for each frame under way: the pair that it was made for
        self._last = 0
        self._order = TrialOrder()

    def sealed(self, pair: int) -> None:
        """A frame was made for this pair of the server's."""
        self._used.append(pair)

    def acknowledged(self, newest: int) -> None:
        """The server has taken a frame, and its newest pair was this."""
        if not self._used:
            return  # a frame of the handshake
        used = self._used.popleft()
        place, kept = used - self._last, newest + 1 - self._last
        self.count += self._order.order(kept).index(place)
        self._order.learn(place, kept)
        self._last = used


class Client(FrameReceiver):
    """One client: sends a text, and the next when the peer has acknowledged it."""

    def __init__(self, own_id: int, peer_id: int, spec: CipherSpec) -> None:
        super().__init__(reactor)
        self.ready: Deferred[None] = Deferred()
        self.received = 0
        self.trials = Trials()
        self._id = own_id
        self._peer_id = peer_id
        self._initiator = Initiator(End.CLIENT, [spec], SystemEntropy())
        self._session: Session | None = None
        self._pairs = 0  # the server's, received so far

    def connectionMade(self) -> None:
        super().connectionMade()
        self.send_frame(wire.encode(messages.Connect1(name="", id=self._id, ciphers=self._initiator.offer())))

    def frame_received(self, frame: bytes) -> None:
        message = wire.decode(frame)
        match message:
            case messages.Ack():
                self.trials.acknowledged(self._pairs)
            case messages.Connect2():
                keys = self._initiator.choose(message.ciphers)
                data = messages.ClientKeys(public_key=Pem(keys.public_key), client_random=Octets32(keys.random))
                sent = messages.Connect3(name="", id=self._id, ciphers=message.ciphers, data=data)
                self.send_frame(wire.encode(sent))
            case messages.Connect4():
                self._session = self._initiator.finish(Keys(message.data.public_key, message.data.server_random))
                self.ready.callback(None)
            case messages.Secure() if self._session is not None:
                inner = wire.from_server(self._session.open(message.box, wire.parse))
                self._pairs += 1
                self.received += 1
                if isinstance(inner, messages.ClientCom):
                    self.say(ack_message(self._id, self._peer_id))
                elif isinstance(inner, messages.ClientAck):
                    self.say(com_message(self._id, self._peer_id))

    def say(self, inner: messages.InnerMessage) -> None:
        """Seal and send an inner message."""
        if self._session is not None:
            self.trials.sealed(self._pairs)
            self.send_frame(wire.encode(messages.Secure.of(self._session.seal(wire.encode(inner)))))


def load(port: int, server: int, spec: CipherSpec, clients: int, seconds: float) -> list[Slice]:
    """Put load on the server for ``seconds`` after a warm-up, in slices with slices of the floor between them.

    Beside each stands the mean of the floors before and behind it, as the machine may change its speed meanwhile.
    """
    timer = FloorTimer(spec)
    slices: list[Slice] = []

    async def run() -> None:
        people = [Client(number, number ^ 1, spec) for number in range(2, 2 + clients)]
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", port)
        await gatherResults([connectProtocol(endpoint, person) for person in people])
        await gatherResults([person.ready for person in people])
        for person in people:
            person.say(com_message(person._id, person._peer_id))

        def figures() -> tuple[int, float, int]:
            return sum(p.received for p in people), cpu_of(server), sum(p.trials.count for p in people)

        await deferLater(reactor, WARM_UP)
        time.sleep(REST)
        before = timer.run(SLICE / 2)
        for _ in range(max(1, round(seconds / SLICE))):
            await deferLater(reactor, SETTLE)
            messages, cpu, trials = figures()
            await deferLater(reactor, SLICE)
            messages_now, cpu_now, trials_now = figures()
            time.sleep(REST)  # nothing is read here, and the server comes to rest
            behind = timer.run(SLICE / 2)
            floor = [statistics.mean(pair) for pair in zip(before, behind, strict=True)]
            slices.append(Slice(messages_now - messages, cpu_now - cpu, trials_now - trials, *floor))
            before = behind

    try:
        react(lambda _: Deferred.fromCoroutine(run()))
    except SystemExit as done:
        if done.code:
            raise
    timer.finish()
    return slices
