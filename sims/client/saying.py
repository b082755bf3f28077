"""What is kept, as it is given to programs: an entry of the history as a value, and as an object of JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sims.client.events import Contact, Said
from sims.client.history import Entry


def said(entry: Entry, contact: Callable[[str], Contact]) -> Said:
    """An entry, as programs see it.

    :param contact: who has an id.
    """
    theirs = bool(entry.sender)
    return Said(
        id=entry.id.hex(),
        peer=Contact("", entry.name) if entry.peer.startswith("?") else contact(entry.peer),
        ours=not theirs,
        text=entry.text or "",
        state=entry.state,
        time=entry.time,
        code=entry.code,
        times=entry.times,
        verified=entry.verified if theirs else None,
        confirmed=entry.confirmed if theirs else None,
        order=entry.order,
        missing=entry.missing,
    )


def fields(message: Said) -> dict[str, Any]:
    """One message as an object of JSON: ``from`` whom, or ``to`` whom; what is empty is left out."""
    found: dict[str, Any] = {
        "id": message.id,
        "to" if message.ours else "from": {"id": message.peer.id, "name": message.peer.name},
        "text": message.text,
        "state": message.state,
        "time": message.time,
    }
    if message.code:
        found["code"] = message.code
    if message.times:
        found["times"] = dict(message.times)
    for key in ("verified", "confirmed", "order"):
        value = getattr(message, key)
        if value is not None:
            found[key] = value
    if message.missing:
        found["missing"] = [*message.missing]
    return found
