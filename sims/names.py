"""The one spelling of a name: PRECIS UsernameCaseMapped (RFC 8265), as protocol.rst, "Identity", has it."""

from __future__ import annotations

from functools import lru_cache

from precis_i18n import get_profile

from sims.errors import Code, PeerError

#: Characters of what may be asked for at all. A name has fewer, but may be written with more than it has in the end.
MAX_ASKED = 128

_PROFILE = get_profile("UsernameCaseMapped")


def enforced(name: str) -> str:
    """A name in lower case and in its one spelling.

    :raises PeerError: ``name-invalid``, for what can be no name; at once, when it is longer than :data:`MAX_ASKED`.
    """
    # Whoever asks may be anybody, and the profile takes its time with every character.
    if len(name) > MAX_ASKED:
        raise PeerError(Code.NAME_INVALID, f"a name is written with at most {MAX_ASKED} characters")
    return _enforced(name)


@lru_cache(maxsize=1024)
def _enforced(name: str) -> str:
    try:
        return str(_PROFILE.enforce(name))
    except UnicodeError:  # its text quotes the name
        raise PeerError(Code.NAME_INVALID, "a name is letters, digits and the like, without spaces") from None
