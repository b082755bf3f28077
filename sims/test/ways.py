"""Both ways to read a message, and whether they agree."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from sims import wire
from sims.crypto.seed import Box
from sims.errors import PeerError
from sims.messages import InnerMessage, Message, Secure


def from_client(data: bytes) -> Message | InnerMessage:
    """What a server makes of an inner message."""
    return wire.from_client(wire.parse(data))


def from_server(data: bytes) -> Message | InnerMessage:
    """What a client makes of an inner message."""
    return wire.from_server(wire.parse(data))


def changed(value: dict[str, Any], path: str, *new: object) -> bytes:
    """The JSON of an object in which what stands at a path is replaced, or missing."""
    value = deepcopy(value)
    *parents, last = path.split("/")
    place: Any = value
    for name in parents:
        place = place[int(name) if isinstance(place, list) else name]
    key = int(last) if isinstance(place, list) else last
    if new:
        place[key] = new[0]
    else:
        del place[key]
    return json.dumps(value).encode("ascii")


def short_ways_differ(data: bytes) -> str | None:
    """Where what is read in one pass differs from what is read the long way; None if it doesn't."""
    box, relayed = wire.read_box(data), wire.read_relayed(data)
    if box is not None:
        try:
            secure = wire.decode(data)
        except PeerError as error:
            return f"{box}: {error}"
        if not isinstance(secure, Secure) or [getattr(box, name) for name in Box._fields] != box_fields(secure):
            return f"{box}: {secure}"
    if relayed is not None:
        try:
            inner = from_client(data)
        except PeerError as error:
            return f"{relayed}: {error}"
        if wire.encode(relayed) != wire.encode(inner):
            return f"{relayed}: {inner}"
    return None


def box_fields(secure: Secure) -> list[bytes]:
    """The fields of the box in a message, in their order."""
    return [getattr(secure.box, name) for name in Box._fields]
