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
            connected = {
                "event": "connected",
                "peer": _contact(event.peer),
                "spec": event.spec,
                "verified": event.verified,
            }
            return connected if event.confirmed is None else {**connected, "confirmed": event.confirmed}
        case events.Message():
            message = {"event": "message", "from": _contact(event.sender), "text": event.text, "id": event.id}
            known = {"verified": event.verified, "confirmed": event.confirmed, "order": event.order}
            return message | {key: value for key, value in known.items() if value is not None}
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
        case events.Link():
            return {"event": "link", "link": event.link}
        case events.SafetyNumber():
            return {"event": "safety-number", "peer": _contact(event.peer), "number": event.number}
        case events.Trusted():
            return {"event": "trusted", "peer": _contact(event.peer), "verified": True}
        case events.IdentityChanged():
            return {
                "event": "identity-changed",
                "peer": _contact(event.peer),
                "old": event.old,
                "new": event.new,
            }
        case events.Unreadable():
            return {
                "event": "unreadable",
                "from": _contact(event.sender),
                "id": event.id,
                "code": str(event.code),
            }
    raise TypeError(f"no such event: {type(event).__name__}")


def _name(name: str) -> str:
    """A name as it is shown: short, and without the signs that our own lines are made of."""
    return "".join("_" if char in "()[]*!>:\n" else char for char in clean(name)[:_MAX_NAME])


def _who(contact: Contact) -> str:
    name = _name(contact.name)
    # An id of sims/2 proves something only as a whole; where there is a name, its beginning is enough to tell apart.
    short = f"{contact.id[:8]}..." if len(contact.id) > 20 else contact.id
    return f"{name} ({short})" if name and contact.id else contact.id or name


def _is_seed(spec: str) -> bool:
    return not spec.startswith("X25519MLKEM768")


def _mark(verified: bool, confirmed: bool | None) -> str:
    """What speaks for somebody: nothing on the seed's format, where ``confirmed`` is None."""
    if confirmed is None:
        return "[unauthenticated]"
    if not confirmed:
        return "[sender not confirmed]"
    return "[verified]" if verified else "[unverified]"


def to_text(event: events.Event) -> str | None:
    """Lines for a person, or None for what a person need not see."""
    match event:
        case events.Ready():
            trust = "nothing authenticates this server or anybody on it; " if _is_seed(event.spec) else ""
            return f"* ready as {clean(event.name)} ({event.id}), {event.spec}\n* {trust}'help' lists the commands"
        case events.Listing():
            here = ", ".join(_who(client) for client in event.clients)
            return f"* connected to the server: {here}"
        case events.Connected():
            mark = _mark(event.verified, event.confirmed)
            return f"* conversation with {_who(event.peer)} {mark}, {event.spec}"
        case events.Message():
            mark = _mark(bool(event.verified), event.confirmed)
            notes = {"gap": " [something before this is missing]", "doubled": " [this has come before]"}
            return f"{_who(event.sender)} {mark}{notes.get(event.order or '', '')}: {clean(event.text)}"
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
        case events.Link():
            return f"* your link, for friends: {event.link}"
        case events.SafetyNumber():
            return (
                f"* safety number with {_who(event.peer)}:\n    {event.number[:35]}\n    {event.number[36:]}\n"
                "    The same on both screens? Then nobody sits between you: /trust"
            )
        case events.Trusted():
            return f"* {_who(event.peer)} is verified"
        case events.IdentityChanged():
            return (
                f"! the identity behind {_who(event.peer)} has changed to {event.new}\n"
                "    Ask them in another way whether they have a new device; /accept-identity takes it."
            )
        case events.Unreadable():
            return f"! a message of {_who(event.sender)} could not be read ({event.code})"
    return None


def conversations_to_text(contacts: tuple[Contact, ...], *, authenticated: bool = False) -> str:
    """The answer to ``list-connected``."""
    if not contacts:
        return "* no conversation is open"
    which = "" if authenticated else ", all unauthenticated"
    return f"* open conversations{which}: " + ", ".join(_who(contact) for contact in contacts)
