"""Where a server listens: descriptions of endpoints, and what the links to them say."""

from __future__ import annotations

import re
import socket
from typing import NamedTuple

from sims.crypto.identity import DEFAULT_PORT, Address, ServerLink, parse_server_link
from sims.errors import Code, LocalError, PeerError

#: Where it listens unless told otherwise: all interfaces, IPv4 and IPv6.
DEFAULT = f"tls:{DEFAULT_PORT}"

_DESCRIPTION = re.compile(r"(tls|tcp):([0-9]{1,5})(?::interface=(\S+))?", re.ASCII)
_EVERYWHERE = {"0.0.0.0", "::"}  # noqa: S104 - it is what is not shown in a link


class Listener(NamedTuple):
    """One ``--listen``.

    :ivar interface: an address without brackets; empty for all, IPv4 and IPv6.
    :ivar text: as it was given.
    """

    tls: bool
    port: int
    interface: str
    text: str

    @property
    def named(self) -> str:
        """The interface, if it is one that a link can name."""
        return "" if self.interface in _EVERYWHERE else self.interface


def parse(text: str) -> Listener:
    """Read ``tls:PORT[:interface=ADDRESS]`` or ``tcp:…``; IPv6 as it is, in brackets, or as Twisted wants it.

    :raises LocalError: ``malformed``, with the description.
    """
    match = _DESCRIPTION.fullmatch(text)
    interface = "" if match is None else (match[3] or "").replace("\\:", ":").strip("[]")
    if match is None or int(match[2]) > 0xFFFF or not _is_good(interface):
        raise LocalError(
            Code.MALFORMED, f"cannot listen on {text!r}: it is not tls:PORT or tcp:PORT, with :interface=ADDRESS or not"
        )
    return Listener(match[1] == "tls", int(match[2]), interface, text)


def _is_good(interface: str) -> bool:
    if not interface:
        return True
    family = socket.AF_INET6 if ":" in interface else socket.AF_INET
    try:
        socket.inet_pton(family, interface.partition("%")[0])
    except OSError:
        return False
    return True


def check_host(host: str) -> str:
    """A host that can stand in a link; an IPv6 address without its brackets.

    :raises LocalError: ``malformed``.
    """
    host = host.removeprefix("[").removesuffix("]")
    try:
        link = parse_server_link(str(ServerLink((Address(host, DEFAULT_PORT),), "a" * 32)))
        good = link.addresses[0].host == host and (":" not in host or _is_good(host))
    except PeerError:
        good = False
    if not good:
        raise LocalError(Code.MALFORMED, f"not a host that a link can name: {host!r}")
    return host


def machine_name() -> str:
    """The machine's full name if it leads somewhere, else localhost. May take as long as a name server takes."""
    name = socket.getfqdn()
    try:
        socket.getaddrinfo(name, None)
        return check_host(name)
    except (OSError, UnicodeError, LocalError):
        return "localhost"
