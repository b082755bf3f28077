"""Answers every text with the same text."""

from twisted.internet.defer import DeferredQueue
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import react

from sims import Event, Message, SeedClient, SimsError


async def main(reactor):
    arrived = DeferredQueue()

    def on_event(event: Event) -> None:
        if isinstance(event, Message):
            arrived.put(event)

    server = clientFromString(reactor, "tcp:127.0.0.1:8080")
    client = SeedClient(server, "echo", 3, clock=reactor, on_event=on_event)
    ready = await client.connect()
    print(f"ready as {ready.name} ({ready.id})", flush=True)
    while True:
        message = await arrived.get()
        try:
            await client.send(message.sender.id, message.text, timeout=30)
        except SimsError as error:
            print(f"no answer to {message.sender.id}: {error.code}", flush=True)


react(main)
