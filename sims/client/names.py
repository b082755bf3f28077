"""Names as they are compared: in the one spelling in which the server keeps them (protocol.rst, "Identity")."""

from __future__ import annotations

from sims.errors import PeerError
from sims.names import MAX_ASKED, enforced


def folded(name: str) -> str:
    """A name in its one spelling; what can be no name stays as it is, and so is like no name that can.

    Not ``casefold``: that takes names for the same which the server gives to two people.
    """
    try:
        return enforced(name)
    except PeerError:
        return name


def can_be_asked(name: str) -> bool:
    """Whether a question for this name can be sent at all; the server decides which it takes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return 1 <= len(name) <= MAX_ASKED
