"""What a user types, or a program writes, to a command."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
from msgspec import Struct

from sims.client.history import PAGE
from sims.errors import Code, LocalError

Ref = str | int | None

#: The longest line of input, bytes.
MAX_LINE = 256 * 1024
_LIMIT = re.compile(r"[0-9]{1,5}", re.ASCII)


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


class History(Command, frozen=True, kw_only=True, tag_field="do", tag="history"):
    """What was said with somebody? ``before`` is the id of a message, of which only earlier ones are wanted."""

    to: str | int
    limit: int = PAGE
    before: str | None = None


class Search(Command, frozen=True, kw_only=True, tag_field="do", tag="search"):
    """Where were these words said?"""

    text: str
    limit: int = PAGE


class Why(Command, frozen=True, kw_only=True, tag_field="do", tag="why"):
    """What has become of a message?"""

    id: str


class Delete(Command, frozen=True, kw_only=True, tag_field="do", tag="delete"):
    """Delete what was said with somebody."""

    to: str | int


class About(Command, frozen=True, kw_only=True, tag_field="do", tag="about"):
    """What does the server keep on us?"""


class DeleteAccount(Command, frozen=True, kw_only=True, tag_field="do", tag="delete-account"):
    """Have the server forget us."""


class Quit(Command, frozen=True, kw_only=True, tag_field="do", tag="quit"):
    """Finish what is under way, then leave."""


class AskDeleteAccount(Command, frozen=True, kw_only=True):
    """What does it mean to have the server forget us? (On the console only: a person is asked first.)"""


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
/history NAME [N]         what was said, the newest N messages (50), with the beginnings of their ids
/search WORDS             where all these words were said, or words that begin so
/why ID                   what has become of a message
/delete NAME              delete what was said with somebody, here
/about                    what the server keeps on you
/delete-account           have the server forget you
/list                     who is at the server, where it keeps a directory
/list-connected           the conversations that are open
/help                     this
/quit                     finish what is under way and leave (as at the end of input)
The same without a slash and with dashes: send-NAME-text"""

_decoder = msgspec.json.Decoder(
    ListClients
    | Connect
    | Send
    | Disconnect
    | OwnLink
    | Verify
    | Trust
    | AcceptIdentity
    | History
    | Search
    | Why
    | Delete
    | About
    | DeleteAccount
    | Quit
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
    for verb in ("accept-identity", "delete-account"):
        if not slash and (line == verb or line.startswith(f"{verb}-")):
            line = f"/{verb} {line[len(verb) + 1 :]}"
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
        case "history" if rest:
            to, _, limit = rest.rpartition(" " if slash else "-")
            if to.strip() and _LIMIT.fullmatch(limit):
                return History(to=to.strip(), limit=int(limit))
            return History(to=rest)
        case "search" if rest:
            return Search(text=rest)
        case "why" if rest:
            return Why(id=rest)
        case "delete" if rest:
            return Delete(to=rest)
        case "about" if not rest:
            return About()
        case "delete-account" if rest in ("", "yes"):
            return DeleteAccount() if rest else AskDeleteAccount()
        case "send" if rest:
            to, _, text = rest.partition(" " if slash else "-")
            if to.strip() and text.strip():
                return Send(to=to.strip(), text=text.strip())
            raise _bad("send what to whom? send-ID-text or /send ID text")
        case "why" | "search":
            raise _bad(f"{verb} what? {verb}-{'ID' if verb == 'why' else 'WORDS'}, or with a slash and a space")
        case "connect" | "disconnect" | "send" | "verify" | "trust" | "accept-identity" | "history" | "delete":
            raise _bad(f"{verb} whom? {verb}-ID or /{verb} ID")
    raise _bad("no such command; 'help' lists them")
