"""What a user types, or a program writes, to a command."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from msgspec import Struct

from sims.errors import Code, LocalError

Ref = str | int | None

#: The longest line of input, bytes.
MAX_LINE = 256 * 1024


class Command(Struct, frozen=True, kw_only=True):
    """Base of all commands. ``ref`` is echoed in every event that the command causes."""

    ref: Ref = None


class ListClients(Command, frozen=True, kw_only=True, tag_field="do", tag="list"):
    """Who is connected to the server?"""


class Connect(Command, frozen=True, kw_only=True, tag_field="do", tag="connect"):
    """Open a conversation."""

    to: str | int


class Send(Command, frozen=True, kw_only=True, tag_field="do", tag="send"):
    """Send a text, opening a conversation if there is none."""

    to: str | int
    text: str


class Disconnect(Command, frozen=True, kw_only=True, tag_field="do", tag="disconnect"):
    """Close a conversation."""

    to: str | int


class OwnLink(Command, frozen=True, kw_only=True, tag_field="do", tag="link"):
    """What is the own link?"""


class Verify(Command, frozen=True, kw_only=True, tag_field="do", tag="verify"):
    """What is the safety number of somebody?"""

    to: str | int


class Trust(Command, frozen=True, kw_only=True, tag_field="do", tag="trust"):
    """The safety number was compared: this is who they say."""

    to: str | int


class AcceptIdentity(Command, frozen=True, kw_only=True, tag_field="do", tag="accept-identity"):
    """Take the other identity that the server gives for a name."""

    to: str | int


class Quit(Command, frozen=True, kw_only=True, tag_field="do", tag="quit"):
    """Finish what is under way, then leave."""


class ListConnected(Command, frozen=True, kw_only=True):
    """Whom is there a conversation with? (On the console only.)"""


class Help(Command, frozen=True, kw_only=True):
    """Which commands are there? (On the console only.)"""


SEED_HELP = """\
list                      who is connected to the server
connect-ID                open a conversation
list-connected            the conversations that are open
send-ID-text              send a text (opens a conversation first if there is none)
disconnect-ID             close a conversation
help                      this
quit                      finish what is under way and leave (as at the end of input)
ID is a number or a name. The same with a slash and spaces: /send 7 hi there"""

HELP = """\
/send NAME text           send a text: to a name, an id, or the link of a friend
/connect NAME             open a conversation
/link                     the own link, to hand to a friend
/verify NAME              the safety number: compare it, face to face or on the phone
/trust NAME               the numbers were the same: mark them as verified
/accept-identity NAME     take the new identity of somebody whose identity has changed
/disconnect NAME          close a conversation
/list                     who is at the server, where it keeps a directory
/list-connected           the conversations that are open
/help                     this
/quit                     finish what is under way and leave (as at the end of input)
The same without a slash and with dashes: send-NAME-text"""

_decoder = msgspec.json.Decoder(
    ListClients | Connect | Send | Disconnect | OwnLink | Verify | Trust | AcceptIdentity | Quit
)


def _bad(text: str) -> LocalError:
    return LocalError(Code.MALFORMED, text)


def parse_json(line: bytes) -> Command:
    """The command in one line of JSON.

    :raises LocalError: ``malformed``.
    """
    try:
        command: Command = _decoder.decode(line)
        return command
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        text = str(error) if isinstance(error, msgspec.ValidationError) else "not a JSON object"
        raise _bad(f"not a command: {text}") from None


def ref_of(line: bytes) -> Ref:
    """The ``ref`` of a line that is no valid command, if one can be made out."""
    try:
        value: Any = json.loads(line)
    except (ValueError, RecursionError):
        return None
    ref = value.get("ref") if isinstance(value, dict) else None
    return ref if isinstance(ref, str) or type(ref) is int else None


def parse_text(line: str) -> Command | None:
    """The command in a line that somebody typed: with dashes, as the seed has it, or with a slash and spaces.

    Gives None for an empty line.

    :raises LocalError: ``malformed``.
    """
    line = line.strip()
    if not line:
        return None
    slash = line.startswith("/")
    if line.removeprefix("/") == "list-connected":
        return ListConnected()
    if not slash and line.startswith("accept-identity-"):
        line = f"/accept-identity {line.removeprefix('accept-identity-')}"
        slash = True
    verb, _, rest = line[1:].partition(" ") if slash else line.partition("-")
    verb, rest = verb.strip().lower(), rest.strip()
    match verb:
        case "help" | "?" if not rest:
            return Help()
        case "list" if not rest:
            return ListClients()
        case "quit" | "exit" if not rest:
            return Quit()
        case "link" if not rest:
            return OwnLink()
        case "verify" if rest:
            return Verify(to=rest)
        case "trust" if rest:
            return Trust(to=rest)
        case "accept-identity" if rest:
            return AcceptIdentity(to=rest)
        case "connect" if rest:
            return Connect(to=rest)
        case "disconnect" if rest:
            return Disconnect(to=rest)
        case "send" if rest:
            to, _, text = rest.partition(" " if slash else "-")
            if to.strip() and text.strip():
                return Send(to=to.strip(), text=text.strip())
            raise _bad("send what to whom? send-ID-text or /send ID text")
        case "connect" | "disconnect" | "send" | "verify" | "trust" | "accept-identity":
            raise _bad(f"{verb} whom? {verb}-ID or /{verb} ID")
    raise _bad("no such command; 'help' lists them")
