"""``python -m tests.bench connect``: what a connect of sims/2 over TLS costs the server, beside what it cannot avoid.

That is a TLS handshake, as a bare Twisted listener makes it, and the primitives of the server's end, called directly.
People who have an account already connect, eight at a time, and close as soon as they are through. The three take turns
in one run; the primitives are timed as in ``tests.bench seed``, by a process that is woken for each.
"""

from __future__ import annotations

import hashlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from tests.bench import cpu_of
from tests.bench_relay import Relay, start_bare, start_sims

#: How many are under way at once.
AT_ONCE = 8
#: Bytes of the boxes of phases 2, 3 and 4, as they are padded.
BOX_SIZES = (512, 512, 512)
#: Bytes that the transcript hashes take in: th1 the frame of phase 1 and the KEM ciphertext; th2, th3, th4 a box each.
HASHED_SIZES = (3072, 600, 600, 600)


def primitives() -> Callable[[], None]:
    """The server's share of one connect. No code of this project runs here."""
    public = X25519PrivateKey.generate().public_key().public_bytes_raw()
    kem = MLKEM768PrivateKey.generate().public_key().public_bytes_raw()
    signed = os.urandom(64)
    own, signer = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    theirs, signature = signer.public_key(), signer.sign(signed)
    nonce, boxes = os.urandom(12), [os.urandom(size) for size in BOX_SIZES]
    hashed = [os.urandom(size) for size in HASHED_SIZES]

    def run() -> None:
        key = X25519PrivateKey.generate()
        key.public_key().public_bytes_raw()
        shared = key.exchange(X25519PublicKey.from_public_bytes(public))
        secret, _ = MLKEM768PublicKey.from_public_bytes(kem).encapsulate()
        mac = HMAC(bytes(48), hashes.SHA384())
        mac.update(secret + shared)
        hs = mac.finalize()
        for part in hashed:
            hashlib.sha384(part).digest()
        own.sign(signed)
        theirs.verify(signature, signed)
        for box in boxes:
            out = HKDFExpand(hashes.SHA384(), 44, signed).derive(hs)
            AESGCM(out[:32]).encrypt(nonce, box, signed)
        HKDFExpand(hashes.SHA384(), 96, signed).derive(hs)

    return run


def measure_primitives() -> None:
    """Run them once for each full stop on standard input; a question mark asks for the mean since the last."""
    run = primitives()
    spent: list[float] = []
    while byte := os.read(0, 1):
        if byte == b"?":
            print(statistics.mean(spent), flush=True)
            spent = []
            continue
        start = time.process_time()
        run()
        spent.append(time.process_time() - start)
        os.write(1, b".")


class _Child:
    """A process that answers a line with a line."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-m", *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def write(self, data: bytes) -> None:
        if self.process.stdin is None:
            raise SystemExit("no pipe")
        os.write(self.process.stdin.fileno(), data)

    def read_byte(self) -> None:
        if self.process.stdout is None:
            raise SystemExit("no pipe")
        os.read(self.process.stdout.fileno(), 1)

    def read_line(self) -> str:
        if self.process.stdout is None:
            raise SystemExit("no pipe")
        line = b""
        while not line.endswith(b"\n"):
            more = os.read(self.process.stdout.fileno(), 4096)
            if not more:
                raise SystemExit("a process of the benchmark has ended")
            line += more
        return line.decode("ascii").strip()

    def end(self) -> None:
        self.process.communicate()


def bench_connect(seconds: float, rounds: int) -> None:
    """Print microseconds of server CPU of each, and the ratio."""
    print(f"server CPU of one connect over TLS, {AT_ONCE} at once, accounts that are there; limits lifted")
    print(f"{rounds} rounds of {seconds:g} s each, taking turns")
    with tempfile.TemporaryDirectory() as folder:
        sims, bare = start_sims(folder), start_bare(folder)
        loads = [_Child("tests.bench_connect_load", kind, one.link) for kind, one in (("sims", sims), ("bare", bare))]
        direct = _Child("tests.bench_connect")
        try:
            for load in loads:
                if load.read_line() != "ready":
                    raise SystemExit("a load did not start")
            rows = [_round(seconds, (sims, bare), loads, direct) for _ in range(rounds)]
        finally:
            for child in (*loads, direct):
                child.end()
            for relay in (sims, bare):
                relay.process.terminate()
                relay.process.wait(10)
    ours, tls, alone = (statistics.median(row[index] for row in rows) * 1e6 for index in range(3))
    ratios = [ours / (tls + alone) for ours, tls, alone in rows]
    print(f"connect          {ours:9.0f} us")
    print(f"bare handshake   {tls:9.0f} us")
    print(f"its primitives   {alone:9.0f} us")
    print(f"ratio {statistics.median(ratios):14.2f}  (of each round: {', '.join(f'{one:.2f}' for one in ratios)})")


def _round(
    seconds: float, relays: tuple[Relay, Relay], loads: list[_Child], direct: _Child
) -> tuple[float, float, float]:
    found = []
    for relay, load in zip(relays, loads, strict=True):
        before = cpu_of(relay.process.pid)
        load.write(f"{seconds}\n".encode("ascii"))
        count = int(load.read_line())
        found.append((cpu_of(relay.process.pid) - before) / count)
    own_work = primitives()
    end = time.monotonic() + seconds / 2
    while time.monotonic() < end:
        direct.write(b".")
        own_work()  # this process is as busy as the load's clients are
        direct.read_byte()
    direct.write(b"?")
    return found[0], found[1], float(direct.read_line())


if __name__ == "__main__":
    measure_primitives()
