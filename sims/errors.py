"""Every error that SIMS raises on purpose.

Two families: a :class:`LocalError` says that this side cannot do what was asked; a :class:`PeerError` says that the
other side sent something that is refused. Whatever crosses the wire has a :class:`Code`; programs match on the code,
never on the text. No error carries a key, a plaintext or anything else that a peer wrote.
"""

from __future__ import annotations

from enum import StrEnum


class Code(StrEnum):
    """What can be wrong (protocol.rst, "Errors"): one set for what crosses the wire and for what stays here."""

    MALFORMED = "malformed"
    TOO_LARGE = "too-large"
    NO_COMMON_SPEC = "no-common-spec"
    POLICY = "policy"
    NOT_AUTHENTICATED = "not-authenticated"
    INVITE_REQUIRED = "invite-required"
    INVITE_USED = "invite-used"
    NAME_TAKEN = "name-taken"
    NAME_INVALID = "name-invalid"
    UNKNOWN_RECIPIENT = "unknown-recipient"
    NOT_SENDER = "not-sender"
    RATE_LIMITED = "rate-limited"
    MAILBOX_FULL = "mailbox-full"
    REPLACED = "replaced"
    REKEY_REQUIRED = "rekey-required"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


class SimsError(Exception):
    """Base of all errors of this package.

    :ivar code: what happened, for programs.
    :ivar text: what happened, for people.
    """

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text


class LocalError(SimsError):
    """This side was asked for something that it cannot or will not do."""


class UnavailableError(LocalError):
    """The other end cannot be reached, went away, or did not answer in time."""

    def __init__(self, text: str) -> None:
        super().__init__(Code.UNAVAILABLE, text)


class PeerError(SimsError):
    """The other side sent something that is refused; nothing of this side's state has changed."""


def malformed(text: str) -> PeerError:
    """The commonest :class:`PeerError`: the bytes are not what the protocol says they are."""
    return PeerError(Code.MALFORMED, text)
