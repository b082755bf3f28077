"""Events to lines: JSON for programs, text for people."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

from sims.client import events
from sims.client.events import Contact, Delivery

#: Characters of the category "format" that make text what it should be: the joiners of scripts and of emoji.
_JOINERS = {"\u200c", "\u200d"}
_MAX_NAME = 32


def clean(text: str) -> str:
    """What a peer wrote, without what would act on a terminal or disguise a line: control and bidi characters.

    Further lines are indented, so that no line of a text can be taken for one of ours.
    """
    lines = text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n").split("\n")
    kept = ("".join(char for char in line.replace("\t", " ") if _is_plain(char)) for line in lines)
    return "\n    ".join(kept)


def _is_plain(char: str) -> bool:
    category = unicodedata.category(char)
    return category not in ("Cc", "Cf", "Cs", "Co", "Cn") or char in _JOINERS


def to_json(event: events.Event) -> str:
    """One line of JSON, in ASCII."""
    fields = _fields(event)
    if event.ref is not None:
        fields["ref"] = event.ref
    return json.dumps(fields, separators=(",", ":"))


def _contact(contact: Contact) -> dict[str, str]:
    return {"id": contact.id, "name": contact.name}


def _fields(event: events.Event) -> dict[str, Any]:
    match event:
        case events.Ready():
            return {"event": "ready", "id": event.id, "name": event.name, "spec": event.spec}
        case events.Listing():
            return {"event": "list", "clients": [_contact(client) for client in event.clients]}
        case events.Connected():
            return {
                "event": "connected",
                "peer": _contact(event.peer),
                "spec": event.spec,
                "verified": event.verified,
            }
        case events.Message():
            return {"event": "message", "from": _contact(event.sender), "text": event.text, "id": event.id}
        case events.State():
            fields: dict[str, Any] = {"event": "state", "id": event.id, "to": _contact(event.to)}
            if event.text is not None:
                fields["text"] = event.text
            fields["state"] = str(event.state)
            if event.code is not None:
                fields["code"] = str(event.code)
            return fields
        case events.Disconnected():
            return {"event": "disconnected", "peer": _contact(event.peer)}
        case events.Offline():
            return {"event": "offline"}
        case events.Problem():
            return {"event": "error", "code": str(event.code), "text": event.text}
    raise TypeError(f"no such event: {type(event).__name__}")


def _name(name: str) -> str:
    """A name as it is shown: short, and without the signs that our own lines are made of."""
    return "".join("_" if char in "()[]*!>:\n" else char for char in clean(name)[:_MAX_NAME])


def _who(contact: Contact) -> str:
    name = _name(contact.name)
    return f"{name} ({contact.id})" if name and contact.id else contact.id or name


def to_text(event: events.Event) -> str | None:
    """Lines for a person, or None for what a person need not see."""
    match event:
        case events.Ready():
            return (
                f"* ready as {clean(event.name)} ({event.id}), {event.spec}\n"
                "* nothing authenticates this server or anybody on it; 'help' lists the commands"
            )
        case events.Listing():
            here = ", ".join(_who(client) for client in event.clients)
            return f"* connected to the server: {here}"
        case events.Connected():
            return f"* conversation with {_who(event.peer)} [unauthenticated], {event.spec}"
        case events.Message():
            return f"{_who(event.sender)} [unauthenticated]: {clean(event.text)}"
        case events.State(state=Delivery.DELIVERED):
            return f"* delivered to {_who(event.to)}"
        case events.State(state=Delivery.FAILED):
            return f"! not delivered to {_who(event.to)}: {event.code}"
        case events.Disconnected():
            return f"* conversation with {_who(event.peer)} is closed"
        case events.Offline():
            return "! the connection to the server is lost; trying again"
        case events.Problem():
            return f"! {clean(event.text)} ({event.code})"
    return None


def conversations_to_text(contacts: tuple[Contact, ...]) -> str:
    """The answer to ``list-connected``."""
    if not contacts:
        return "* no conversation is open"
    return "* open conversations, all unauthenticated: " + ", ".join(_who(contact) for contact in contacts)
