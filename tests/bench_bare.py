"""The bare relay of ``python -m tests.bench relay``: TLS, lines, and nothing else.

The first line of a connection is its number; whatever comes after goes to the number's partner (0 and 1, 2 and 3, ...).
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any, cast

from twisted.internet import reactor
from twisted.internet.endpoints import SSL4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.ssl import CertificateOptions, PrivateCertificate, TLSVersion
from twisted.protocols.basic import LineReceiver

from sims.crypto.certificate import self_signed


class Bare(LineReceiver):
    """One connection."""

    delimiter = b"\n\n"
    MAX_LENGTH = 2**20

    def __init__(self, members: dict[int, Bare]) -> None:
        self._members = members
        self._number = -1

    def lineReceived(self, line: bytes) -> None:
        if self._number < 0:
            self._number = int(line)
            self._members[self._number] = self
            return
        self._members[self._number ^ 1].sendLine(line)


def main(folder: Path) -> None:
    """Listen on a free port of this machine, and print it."""
    made = self_signed(time.time())
    members: dict[int, Bare] = {}
    factory = Factory.forProtocol(lambda: Bare(members))
    factory.noisy = False
    certificate = PrivateCertificate.loadPEM(made.certificate + made.key)
    options = CertificateOptions(
        privateKey=certificate.privateKey.original,
        certificate=certificate.original,
        raiseMinimumTo=TLSVersion.TLSv1_3,
    )
    listening = SSL4ServerEndpoint(reactor, 0, options, interface="127.0.0.1").listen(factory)

    def say(port: Any) -> None:
        print(port.getHost().port, flush=True)

    listening.addCallback(say)
    cast("Any", reactor).run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
