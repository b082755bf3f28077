"""Measures the real server process against what its work cannot do without: ``python -m tests.bench seed``.

Nothing is asserted here: it prints figures of one run, and their ratios. Absolute figures depend on the machine.
"""

from __future__ import annotations

import argparse
import hmac
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from cryptography.hazmat.decrepit.ciphers.modes import OFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from sims import messages, specs, wire
from sims.specs import CipherSpec
from sims.strictjson import Digest, Octets, Octets16, Octets32, Pem

TEXT_SIZE = 300


# --- the floor --------------------------------------------------------------------------------------------------------


class Floor(NamedTuple):
    """Seconds of CPU: for a relay of one message (the mean of a text and its ack), and for one more trial of a key."""

    relay: float
    trial: float


def primitives_of(spec: CipherSpec) -> tuple[Callable[[bytes], None], Callable[[bytes], None]]:
    """What one relay cannot avoid, and what one more trial of a kept key costs, called directly.

    No code of this project runs here.
    """
    curve, ecdh = ec.SECP384R1(), ec.ECDH()
    own = ec.generate_private_key(curve)
    point = own.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    salt, iv = os.urandom(64), os.urandom(16)
    mode = CTR if spec.mode == "CTR" else OFB

    def key_of(private: ec.EllipticCurvePrivateKey, public: ec.EllipticCurvePublicKey) -> bytes:
        return HKDF(hashes.SHA256(), 32, salt, b"hkdf-example").derive(private.exchange(ecdh, public))

    def run_cipher(key: bytes, data: bytes) -> bytes:
        context = Cipher(algorithms.AES(key), mode(iv)).encryptor()
        return context.update(data) + context.finalize()

    def relay(data: bytes) -> None:
        # Each key is used as often as in a relay: what the library keeps with a key is made for every message.
        nonlocal own, point
        public = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        key = key_of(own, public)
        hmac.digest(key, data, spec.hash)
        plain = run_cipher(key, data)
        fresh = ec.generate_private_key(curve)
        point = fresh.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
        key = key_of(fresh, public)
        hmac.digest(key, run_cipher(key, plain), spec.hash)
        own = fresh

    def trial(data: bytes) -> None:
        public = ec.EllipticCurvePublicKey.from_encoded_point(curve, point)
        hmac.digest(key_of(own, public), data, spec.hash)

    return relay, trial


def measure_floor(spec: CipherSpec) -> None:
    """Time the primitives as a server meets them: woken for each message, by a process that is as busy.

    In a loop of nothing else they are faster by what caches and branch predictors then remember; no server that waits
    for its messages can have that. Each full stop on standard input is a message, and answered with one; a question
    mark asks for the figures since the last. Only the primitives are timed.
    """
    relay, trial = primitives_of(spec)
    buffers = [bytes(size) for size in _inner_sizes()]
    turns = itertools.cycle([(act, data) for data in buffers for act in (relay, relay, trial)])
    spent: dict[Callable[[bytes], None], list[float]] = {relay: [], trial: []}
    while byte := os.read(0, 1):
        if byte == b"?":
            print(*(statistics.mean(times) for times in spent.values()), flush=True)
            spent = {relay: [], trial: []}
            continue
        act, data = next(turns)
        start = time.process_time()
        act(data)
        spent[act].append(time.process_time() - start)
        os.write(1, b".")


def _inner_sizes() -> list[int]:
    """The plaintext sizes of what is relayed: a text and its ack."""
    return [len(wire.encode(com_message(1, 2))), len(wire.encode(ack_message(2, 1)))]


#: After so many messages each of the primitives was timed.
_TURNS = 6


class FloorTimer:
    """The floor, timed in a process of its own while this one does as much work, as the load's clients do.

    It is timed in slices, between those of the load: what the machine does meanwhile then meets both alike.
    """

    def __init__(self, spec: CipherSpec) -> None:
        command = [sys.executable, "-m", "tests.bench", "floor", spec.name]
        self._child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._own_work, _ = primitives_of(spec)

    def run(self, seconds: float) -> Floor:
        """Time the primitives for so long, and each at least once; gives the means."""
        wake, done = self._child.stdin, self._child.stdout
        if wake is None or done is None:
            raise SystemExit("no pipes")
        end = time.monotonic() + seconds
        count = 0
        while time.monotonic() < end or count < _TURNS:
            count += 1
            os.write(wake.fileno(), b".")
            self._own_work(bytes(TEXT_SIZE))
            os.read(done.fileno(), 1)
        os.write(wake.fileno(), b"?")
        line = b""
        while not line.endswith(b"\n"):
            line += os.read(done.fileno(), 4096)
        relay, trial = (float(figure) for figure in line.split())
        return Floor(relay, trial)

    def finish(self) -> None:
        """Let go of the process."""
        self._child.communicate()


# --- the load ---------------------------------------------------------------------------------------------------------


def com_message(src: int, dst: int) -> messages.ClientCom:
    """A client-com of a text of 300 bytes. The relay cannot look into it, so its box is made up."""
    box = messages.SealedBox(
        hash=Digest(bytes(32)),
        iv=Octets16(bytes(16)),
        public_key=Pem(bytes(215)),
        ciphertext=Octets(bytes(TEXT_SIZE + 2)),
        random=Octets32(bytes(32)),
    )
    return messages.ClientCom(src=src, dst=str(dst), data=box)


def ack_message(src: int, dst: int) -> messages.ClientAck:
    return messages.ClientAck(src=src, dst=dst)


class Slice(NamedTuple):
    """What a slice of a load came to: messages that arrived, seconds of the server's CPU, further trials.

    :ivar relay: the floor, as timed right before and behind it; ``trial`` likewise.
    """

    messages: int
    cpu: float
    trials: int
    relay: float
    trial: float

    @property
    def rate(self) -> float:
        """Messages a second of CPU."""
        return self.messages / self.cpu

    @property
    def floor(self) -> float:
        """The same, were there nothing but the primitives."""
        return self.messages / (self.messages * self.relay + self.trials * self.trial)


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has used, in all its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def run_load(port: int, server: int, spec: CipherSpec, clients: int, seconds: float) -> list[Slice]:
    """Let pairs of clients talk, each with one text in flight, and measure the server from the outside."""
    command = [sys.executable, "-m", "tests.bench", "load", str(port), str(server), spec.name, str(clients)]
    done = subprocess.run([*command, str(seconds)], stdout=subprocess.PIPE, text=True, check=True)
    found = []
    for line in done.stdout.splitlines():
        count, cpu, trials, relay, trial = line.split()
        if int(count):
            found.append(Slice(int(count), float(cpu), int(trials), float(relay), float(trial)))
    return found


def start_server(folder: str) -> tuple[subprocess.Popen[str], int]:
    """The server as users run it; gives its port."""
    script = Path(sys.executable).parent / "twistd"
    command = [str(script), "-n", "sims-server", "--dir", folder, "--seed-listen", "tcp:0:interface=127.0.0.1"]
    command += ["--limit", "connections=none"]  # 100 of one address are too many otherwise
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, cwd=folder)
    line = child.stdout.readline() if child.stdout is not None else ""
    if not line.startswith("sims-seed://"):
        child.kill()
        raise SystemExit("the server did not start")
    return child, int(line.rsplit(":", 1)[1])


def bench_seed(seconds: float, rounds: int) -> None:
    """For each spec of the seed: messages a second of server CPU, the floor's, and the ratio."""
    print(f"{TEXT_SIZE}-byte texts, one in flight a client, client acks counted")
    print(f"{rounds} rounds of {seconds:g} s, in slices, each between two of the floor; medians of all slices")
    print(
        f"{'spec':26} {'clients':>7} {'messages/CPU s':>14} {'floor':>9} {'ratio':>6} {'quartiles':>10} "
        f"{'further trials a message':>25}"
    )
    for spec in specs.SEED:
        for clients in (2, 100):
            slices: list[Slice] = []
            for _ in range(rounds):
                with tempfile.TemporaryDirectory() as folder:
                    server, port = start_server(folder)
                    try:
                        slices += run_load(port, server.pid, spec, clients, seconds)
                    finally:
                        server.terminate()
                        server.wait(10)
            rate = statistics.median(one.rate for one in slices)
            floor = statistics.median(one.floor for one in slices)
            low, ratio, high = statistics.quantiles([one.rate / one.floor for one in slices], n=4)
            trials = sum(one.trials for one in slices) / sum(one.messages for one in slices)
            print(
                f"{spec.name:26} {clients:7} {rate:14.0f} {floor:9.0f} {ratio:6.2f} {low:5.2f}-{high:4.2f} "
                f"{trials:25.2f}",
                flush=True,
            )


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a benchmark."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    seed = commands.add_parser("seed", help="the seed's relay, for each spec, with 2 and with 100 clients")
    seed.add_argument("--seconds", type=float, default=6.0, help="how long each load lasts (default: 6)")
    seed.add_argument("--rounds", type=int, default=3, help="how often a server is started (default: 3)")
    crypto = commands.add_parser("crypto", help="sessions beside other libraries' (needs the extra 'bench')")
    crypto.add_argument("--scale", type=float, default=1.0, help="how much longer each slice lasts (default: 1)")
    relay = commands.add_parser("relay", help="the sims/2 server over TLS beside a bare relay")
    relay.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts (default: 3)")
    relay.add_argument("--rounds", type=int, default=5, help="how often the two take turns (default: 5)")
    connect = commands.add_parser("connect", help="a connect of sims/2 over TLS beside a bare handshake")
    connect.add_argument("--seconds", type=float, default=2.0, help="how long each load lasts (default: 2)")
    connect.add_argument("--rounds", type=int, default=7, help="how often they take turns (default: 7)")
    idle = commands.add_parser("idle", help="the memory that idle connections over TLS take")
    idle.add_argument("--connections", type=int, default=10_000, help="how many (default: 10000)")
    online = commands.add_parser("online", help="people who are both here, on disk beside in memory")
    online.add_argument("--seconds", type=float, default=3.0, help="how long each load lasts (default: 3)")
    online.add_argument("--rounds", type=int, default=5, help="how often the two take turns (default: 5)")
    store = commands.add_parser("store", help="durable messages for people who are away, beside a bare writer")
    store.add_argument("--messages", type=int, default=4000, help="in each round (default: 4000)")
    store.add_argument("--rounds", type=int, default=60, help="how often the two take turns (default: 60)")
    floor = commands.add_parser(
        "floor", help="(used by the others) time the primitives, one for each byte of standard input"
    )
    floor.add_argument("spec")
    load = commands.add_parser("load", help="(used by the others) load a server that runs already")
    load.add_argument("port", type=int)
    load.add_argument("server", type=int, help="its process id")
    load.add_argument("spec")
    load.add_argument("clients", type=int)
    load.add_argument("seconds", type=float)
    chosen = parser.parse_args(arguments)
    match chosen.command:
        case "seed":
            bench_seed(chosen.seconds, chosen.rounds)
        case "crypto":
            from tests.bench_crypto import bench_crypto

            bench_crypto(chosen.scale)
        case "relay":
            from tests.bench_relay import bench_relay

            bench_relay(chosen.seconds, chosen.rounds)
        case "connect":
            from tests.bench_connect import bench_connect

            bench_connect(chosen.seconds, chosen.rounds)
        case "idle":
            from tests.bench_idle import bench_idle

            bench_idle(chosen.connections)
        case "online":
            from tests.bench_online import bench_online

            bench_online(chosen.seconds, chosen.rounds)
        case "store":
            from tests.bench_store import bench_store

            bench_store(chosen.messages, chosen.rounds)
        case "floor":
            measure_floor(specs.by_names([chosen.spec])[0])
        case "load":
            from tests.bench_load import load as put_load

            spec = specs.by_names([chosen.spec])[0]
            for one in put_load(chosen.port, chosen.server, spec, chosen.clients, chosen.seconds):
                print(*one)


if __name__ == "__main__":
    main()
