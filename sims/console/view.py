"""Events to lines: JSON for programs, text for people."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from sims.client import events
from sims.client.events import Contact, Delivery, Said
from sims.client.export import conversations
from sims.client.history import UNREADABLE
from sims.client.plain import clean, clean_name, clock
from sims.client.saying import fields as said_fields
from sims.client.store import Store
from sims.client.why import numbers, reason

#: An id of sims/2 is shown to people by so much of its beginning.
_SHORT = 8


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
            lists = {"missing": [*event.missing] or None, "unreadable": [*event.unreadable] or None}
            return message | {key: value for key, value in (known | lists).items() if value is not None}
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
        case _:
            return _later_fields(event)


def _later_fields(event: events.Event) -> dict[str, Any]:
    """The same for what was said before, and for the account."""
    match event:
        case events.Anew():
            return {"event": "began-anew", "peer": _contact(event.peer)}
        case events.NotRead():
            return {"event": "unreadable", "to": _contact(event.to), "id": event.id, "again": event.again}
        case events.History():
            messages = [said_fields(message) for message in event.messages]
            if event.to is None:
                return {"event": "history", "text": event.text, "messages": messages}
            return {"event": "history", "to": _contact(event.to), "messages": messages}
        case events.Why():
            found = {"event": "why", "id": event.id, "peer": _contact(event.peer), "state": event.state}
            code = {"code": event.code} if event.code else {}
            return {**found, **code, "text": event.text, "times": dict(event.times)}
        case events.Deleted():
            return {"event": "deleted", "peer": _contact(event.peer)}
        case events.About():
            return {"event": "about", "facts": _plain(event.facts)}
        case events.AccountDeleted():
            return {"event": "account-deleted"}
    raise TypeError(f"no such event: {type(event).__name__}")


def _who(contact: Contact) -> str:
    name = clean_name(contact.name)
    # An id of sims/2 proves something only as a whole; where there is a name, its beginning is enough to tell apart.
    short = f"{contact.id[:8]}..." if len(contact.id) > 20 else contact.id
    return f"{name} ({short})" if name and contact.id else contact.id or name


def _plain(value: Any) -> Any:
    """What a server may write, as JSON has it: bytes in hexadecimal, what JSON has not as text."""
    match value:
        case dict():
            return {str(_plain(key)): _plain(one) for key, one in value.items()}
        case list() | tuple():
            return [_plain(one) for one in value]
        case bytes():
            return value.hex()
        case None | bool() | int() | str():
            return value
    return str(value)


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
            return f"{_who(event.sender)} {mark}{_order(event.order, event.missing)}: {clean(event.text)}"
        case events.State(state=Delivery.DELIVERED):
            return f"* delivered to {_who(event.to)}"
        case events.State(state=Delivery.FAILED):
            text = reason(str(event.code)) if _is_sims2(event.id) else ""
            return f"! not delivered to {_who(event.to)}: {event.code}{f'; {text}' if text else ''}"
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
        case _:
            return _later_text(event)


def _later_text(event: events.Event) -> str | None:
    """The same for what was said before, and for the account."""
    match event:
        case events.Anew():
            return (
                f"! what {_who(event.peer)} says begins anew: their store is new or restored, or they gave something up"
            )
        case events.NotRead():
            return f"! {_who(event.to)} could not read a message of yours: it is sent again (/why {event.id[:_SHORT]})"
        case events.History():
            found = f"* what was said with {_who(event.to)}" if event.to is not None else "* where that was said"
            return "\n".join((f"{found}: {len(event.messages)} messages", *map(said_to_text, event.messages)))
        case events.Why():
            return f"* message {event.id[:_SHORT]}, {_who(event.peer)}: {event.state}\n    {event.text}"
        case events.Deleted():
            return f"* what was said with {_who(event.peer)} is deleted"
        case events.About():
            lines = json.dumps(_plain(event.facts), indent=2, ensure_ascii=False).split("\n")
            return "* what the server says it keeps on you:\n" + "\n".join(f"    {clean(line)}" for line in lines)
        case events.AccountDeleted():
            return "* the server has forgotten you"
    return None


def _is_sims2(number: str) -> bool:
    return len(number) == 2 * 16


def _order(order: str | None, missing: tuple[int, ...]) -> str:
    if order == "gap" and missing:
        return f" [missing before this: {numbers(missing)}]"
    notes = {"gap": " [something before this is missing]", "doubled": " [this has come before]"}
    return notes.get(order or "", "")


def said_to_text(message: Said) -> str:
    """One message of a history, as lines for a person: the first begins as no line of a text can, nor any name."""
    start = f"[{clock(message.time)} {message.id[:_SHORT]}] "
    text = clean(message.text).replace("\n", "\n    ")
    if message.ours:
        code = f": {message.code}" if message.code else ""
        return f"{start}to {_who(message.peer)} [{message.state}{code}]: {text}"
    if message.state == UNREADABLE:
        return f"{start}{_who(message.peer)}: [could not be read: {message.code}]"
    mark = _mark(bool(message.verified), bool(message.confirmed))
    return f"{start}{_who(message.peer)} {mark}{_order(message.order, message.missing)}: {text}"


def export_to_text(store: Store) -> Iterator[str]:
    """All that was said, for :func:`~sims.client.export.export`: conversation by conversation, message by message."""
    for contact, messages in conversations(store):
        title = f"* what was said with {_who(contact)}\n"
        for message in messages:
            yield title + said_to_text(message)
            title = ""


def conversations_to_text(contacts: tuple[Contact, ...], *, authenticated: bool = False) -> str:
    """The answer to ``list-connected``."""
    if not contacts:
        return "* no conversation is open"
    which = "" if authenticated else ", all unauthenticated"
    return f"* open conversations{which}: " + ", ".join(_who(contact) for contact in contacts)
