"""Names: PRECIS UsernameCaseMapped (RFC 8265), 1 to 32 characters."""

from __future__ import annotations

from functools import lru_cache

from precis_i18n import get_profile

from sims.errors import Code, PeerError

MAX_NAME = 32

_PROFILE = get_profile("UsernameCaseMapped")


@lru_cache(maxsize=1024)
def prepare(name: str) -> str:
    """A name as it is kept and compared: in lower case, in one spelling.

    :raises PeerError: ``name-invalid``.
    """
    try:
        prepared = str(_PROFILE.enforce(name))
    except UnicodeError:  # its text quotes the name
        prepared = ""
    if not 1 <= len(prepared) <= MAX_NAME:
        raise PeerError(Code.NAME_INVALID, f"a name is 1 to {MAX_NAME} letters, digits and the like, without spaces")
    return prepared
