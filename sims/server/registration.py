"""Who is let in: an account that is there, or a new one where that is allowed."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from hashlib import sha256
from typing import NamedTuple

from sims.crypto.handshake import Claim
from sims.errors import Code, PeerError
from sims.server.interfaces import Account, Accounts, Asked, Registered
from sims.server.names import prepare

TOKEN_SIZE = 16


class Mode(StrEnum):
    """Who may have an account: whoever has an invitation, whoever comes, nobody new."""

    INVITE = "invite"
    OPEN = "open"
    CLOSED = "closed"


class Admitted(NamedTuple):
    """Somebody is let in.

    :ivar name: the one that the account has, whatever was asked for.
    :ivar epoch: the highest that was seen before.
    :ivar invitation: one was spent on it just now.
    """

    name: str
    epoch: int | None
    invitation: bool


_CODES = {
    Registered.INVITE_REQUIRED: Code.INVITE_REQUIRED,
    Registered.INVITE_USED: Code.INVITE_USED,
    Registered.NAME_TAKEN: Code.NAME_TAKEN,
}


def hashed(token: str) -> bytes:
    """What is kept of an invitation: 32 bytes. It is random enough for a plain hash."""
    return sha256(b"sims/2 invitation" + token.encode("utf-8")).digest()


def admit(store: Accounts, mode: Mode, claim: Claim, now: int, done: Callable[[Admitted | Code], None]) -> None:
    """Let somebody in who has proved an identity; or say why not.

    :param done: called once, maybe later; a code is ``invite-required``, ``invite-used``, ``name-invalid``,
        ``name-taken``, ``policy`` where nobody new is taken, or ``internal`` where the store could not say.
    """

    def ask() -> None:
        store.connected(claim.id, claim.epoch, Asked(found, failed))

    def failed() -> None:
        done(Code.INTERNAL)

    def found(account: Account | None) -> None:
        if account is not None:
            done(Admitted(account.name, account.epoch, invitation=False))
            return
        wanted = _wanted(mode, claim, now)
        if isinstance(wanted, Code):
            done(wanted)
            return
        invitation = hashed(claim.invite) if mode is Mode.INVITE and claim.invite is not None else None
        store.register(wanted, invitation, Asked(partial(registered, wanted, invitation is not None), failed))

    def registered(account: Account, invitation: bool, result: Registered) -> None:
        if result is Registered.DONE:
            done(Admitted(account.name, None, invitation))
        elif result is Registered.KNOWN:
            ask()  # another connection of the same id was faster
        else:
            done(_CODES[result])

    ask()


def _wanted(mode: Mode, claim: Claim, now: int) -> Account | Code:
    if mode is Mode.CLOSED:
        return Code.POLICY
    if mode is Mode.INVITE and claim.invite is None:
        return Code.INVITE_REQUIRED
    try:
        name = prepare(claim.name)
    except PeerError as error:
        return error.code
    return Account(claim.id, name, claim.identity.sign, claim.identity.dh, now, claim.epoch)
