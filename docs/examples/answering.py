"""Answers every text with the same text: ``python answering.py LINK``, with the link that the server prints."""

import sys

from twisted.internet.defer import DeferredQueue
from twisted.internet.task import react

from sims import Client, Event, Message, SimsError


async def main(reactor, link):
    arrived = DeferredQueue()

    def on_event(event: Event) -> None:
        if isinstance(event, Message):
            arrived.put(event)

    client = Client(reactor, link, "echo", on_event=on_event)
    ready = await client.connect()
    print(f"ready as {ready.name} ({ready.id})", flush=True)
    while True:
        message = await arrived.get()
        try:
            await client.send(message.sender.id, message.text, timeout=30)
        except SimsError as error:
            print(f"no answer to {message.sender.id}: {error.code}", flush=True)


react(main, sys.argv[1:2])
