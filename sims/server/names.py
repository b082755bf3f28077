"""Names as the server gives them: in their one spelling, 1 to 32 characters."""

from __future__ import annotations

from sims.errors import Code, PeerError
from sims.names import enforced

MAX_NAME = 32


def prepare(name: str) -> str:
    """A name as it is kept and compared.

    :raises PeerError: ``name-invalid``.
    """
    prepared = enforced(name)
    if not 1 <= len(prepared) <= MAX_NAME:
        raise PeerError(Code.NAME_INVALID, f"a name is 1 to {MAX_NAME} letters, digits and the like, without spaces")
    return prepared
