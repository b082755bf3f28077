"""``python -m tests.bench relay``: the sims/2 server over TLS beside a relay that does nothing else.

100 pairs of people; each has one message in flight, until its server's ack. The bare relay is a LineReceiver behind the
same TLS, which carries frames of the same sizes, gives each to whom it is for, and sends the same acknowledgements.
Load and bare relay take turns in one run; all limits are lifted.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from base64 import b64encode
from pathlib import Path
from typing import NamedTuple

from tests.bench import cpu_of

PAIRS = 100
#: Bytes of a text, and so of the body of a client-com; of a header without KEM fields.
BODY_SIZE = 512 + 16
HEADER_SIZE = 69


class Sizes(NamedTuple):
    """Of the frames: client-com, the receiver's ack, the server's ack."""

    message: int
    ack: int


class Relay(NamedTuple):
    """A server under load."""

    process: subprocess.Popen[str]
    link: str


def start_sims(folder: str, *more: str) -> Relay:
    """The server as users run it, without limits; ``more`` are options besides."""
    script = Path(sys.executable).parent / "twistd"
    names = ("frame", "handshake", "connections", "sends", "fetches", "mailbox", "unacknowledged")
    limits = [word for name in names for word in ("--limit", f"{name}=none")]
    command = [str(script), "-n", "sims-server", "--dir", folder, "--registration", "open", *limits]
    command += ["--listen", "tls:0:interface=127.0.0.1", *more]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder)
    line = child.stdout.readline().strip() if child.stdout is not None else ""
    if not line.startswith("sims://"):
        child.kill()
        raise SystemExit("the server did not start")
    return Relay(child, line)


def start_bare(folder: str) -> Relay:
    """The bare relay."""
    command = [sys.executable, "-m", "tests.bench_bare", folder]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    line = child.stdout.readline().strip() if child.stdout is not None else ""
    if not line.isdecimal():
        child.kill()
        raise SystemExit("the bare relay did not start")
    return Relay(child, line)


def frame_sizes() -> Sizes:
    """What stands on the wire for a message and for an ack, without terminators: boxes of 1,024 and 512 bytes."""

    def frame(padded: int) -> int:
        return len(b'{"type":"secure","sa-data":{"n":1000},"payload":{"ciphertext":""}}') + len(
            b64encode(bytes(padded + 16))
        )

    return Sizes(frame(1024), frame(512))


def bench_relay(seconds: float, rounds: int) -> None:
    """Print messages a second of server CPU of both, and the ratio."""
    print(f"{PAIRS} pairs over TLS, one message in flight a pair (until the server's ack); limits lifted")
    print(f"{rounds} rounds of {seconds:g} s each, taking turns")
    with tempfile.TemporaryDirectory() as folder:
        sims, bare = start_sims(folder), start_bare(folder)
        try:
            rows: list[tuple[float, float]] = []
            loads = [_load("sims", sims), _load("bare", bare)]
            for _ in range(rounds):
                found = []
                for relay, load in zip((sims, bare), loads, strict=True):
                    before = cpu_of(relay.process.pid)
                    count = _run(load, seconds)
                    found.append(count / (cpu_of(relay.process.pid) - before))
                rows.append((found[0], found[1]))
            for load in loads:
                load.terminate()
                load.wait(10)
        finally:
            for relay in (sims, bare):
                relay.process.terminate()
                relay.process.wait(10)
    ours, theirs = (statistics.median(row[index] for row in rows) for index in (0, 1))
    ratio = statistics.median(own / other for own, other in rows)
    print(f"sims {ours:9.0f} messages/CPU s")
    print(f"bare {theirs:9.0f} messages/CPU s")
    print(f"ratio {ratio:8.2f}  (of each round: {', '.join(f'{own / other:.2f}' for own, other in rows)})")


def _load(kind: str, relay: Relay) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.bench_relay_load", kind, relay.link, str(PAIRS)]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if child.stdout is None or child.stdout.readline().strip() != "ready":
        raise SystemExit(f"the load of the {kind} relay did not start")
    return child


def _run(load: subprocess.Popen[str], seconds: float) -> int:
    """Let a load run for so long; gives how many messages were delivered."""
    if load.stdin is None or load.stdout is None:
        raise SystemExit("no pipes")
    load.stdin.write("go\n")
    load.stdin.flush()
    time.sleep(seconds)
    load.stdin.write("stop\n")
    load.stdin.flush()
    return int(load.stdout.readline())


def spare_body() -> bytes:
    """What a relay cannot look into."""
    return os.urandom(BODY_SIZE)
