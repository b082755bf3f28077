"""Names as they are compared: PRECIS UsernameCaseMapped, as the server keeps them (protocol.rst, "Identity")."""

from __future__ import annotations

from functools import lru_cache

from precis_i18n import get_profile

#: The longest name that can be asked for; the server decides which it takes.
MAX_ASKED = 128

_PROFILE = get_profile("UsernameCaseMapped")


@lru_cache(maxsize=1024)
def folded(name: str) -> str:
    """A name in its one spelling; what can be no name stays as it is, and so is like no name that can.

    Not ``casefold``: that takes names for the same which the server gives to two people.
    """
    try:
        return str(_PROFILE.enforce(name))
    except UnicodeError:
        return name


def can_be_asked(name: str) -> bool:
    """Whether a question for this name can be sent at all."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return 1 <= len(name) <= MAX_ASKED
