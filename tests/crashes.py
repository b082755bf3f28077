"""Two people talk while a server and both clients are killed: ``python -m tests.crashes --kills 300``.

Each process is ended with ``kill -9`` at random moments and started again at once, while both clients go on being told
to send. Between the clients and the server is a relay of bytes that can stop both ways; each of the three may have a
disk of its own that can be full. At the end, of everything that a client has said it accepted or queued, nothing may be
missing, doubled, changed or out of order at the other end.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from tests.forgetful import ForgetfulDisk, Unavailable
from tests.full_disk import SmallDisk
from tests.modern_processes import ModernConsole
from tests.peers.modern_identity import Link
from tests.processes import TIMEOUT, Event, Place, Process

#: Seconds: between two texts of one client; at the end, for everything to arrive.
PACE = 0.04
PATIENCE = 120.0
#: Texts that a client has been told to send and has not said it queued.
AHEAD = 20
#: Bytes: the disk of one process, where it can be full.
DISK = 64 << 20


class Wire:
    """Takes connections and passes their bytes on, both ways, unless it is told to stop."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._flows = threading.Event()
        self._flows.set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])
        threading.Thread(target=self._take, daemon=True).start()

    def cut(self) -> None:
        """Nothing gets through from now on, and nobody is told."""
        self._flows.clear()

    def mend(self) -> None:
        """Everything goes on where it was."""
        self._flows.set()

    def close(self) -> None:
        """Take no more connections."""
        self._flows.set()
        self._listening.close()

    def _take(self) -> None:
        while True:
            try:
                near, _ = self._listening.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(("127.0.0.1", self._target), TIMEOUT)
            except OSError:
                near.close()  # the server is not there just now
                continue
            far.settimeout(None)
            for one, other in ((near, far), (far, near)):
                threading.Thread(target=self._pass, args=(one, other), daemon=True).start()

    def _pass(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := one.recv(65_536):
                self._flows.wait()
                other.sendall(data)
        for end in (one, other):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


class KeptServer:
    """A server on one folder and one port, however often it is killed."""

    def __init__(self, place: Place, folder: Path, *args: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        lifted = [f"--limit={name}=none" for name in ("connections", "handshake", "sends", "fetches", "mailbox")]
        self._argv = ["sims-server", "--dir", str(folder), f"--listen=tls:{self.port}:interface=127.0.0.1", *lifted]
        self._argv += args
        self._place = place
        self.folder = folder
        self._given: set[str] = set()
        self.complaints: list[str] = []
        self.start()

    def start(self) -> None:
        """Start it."""
        self.process = Process(self._place, self._argv)

    def kill(self) -> None:
        """End it as a crash would."""
        self.process.kill()
        self.complaints += _complaints(self.process)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.process.popen.poll() is not None

    def link(self, port: int) -> str:
        """A link with an invitation that was not given out, by way of another port."""

        def find() -> Link | None:
            for line in self.process.out:
                link = Link.parse(line)
                if link.invite is not None and link.invite not in self._given:
                    self._given.add(link.invite)
                    return link
            return None

        link = self.process.wait_until(find, "a link with a new invitation")
        return str(link).replace(f":{self.port}", f":{port}")


class Talker:
    """One person, and all that their client has said in its lives."""

    def __init__(self, place: Place, name: str, link: str, *args: str) -> None:
        self.name = name
        self.folder = place.cwd / f"profile-{name}"
        self.peer = ""
        self.told = 0  # texts that it was told to send
        self.complaints: list[str] = []
        self._args = args
        self._link = link
        self._place = place
        self._before: list[Event] = []
        self.start()

    def start(self) -> None:
        """Start the client."""
        self._told_before = self.told
        self.console = ModernConsole(self._place, self._link, self.name, *self._args)
        self._link = ""  # the profile's from now on

    def kill(self) -> None:
        """End it as a crash would."""
        self.console.kill()
        self._before += self.console.events
        self.complaints += _complaints(self.console)

    @property
    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        return self.console.popen.poll() is not None

    @property
    def events(self) -> list[Event]:
        """Everything that it has said."""
        return [*self._before, *self.console.events]

    def go_on(self) -> None:
        """Send one more, unless the client is behind."""
        queued = sum(1 for event in self.console.events if event.get("state") == "queued")
        if self.told - self._told_before - queued < AHEAD:
            self.told += 1
            self.console.do("send", to=self.peer, text=f"{self.name} {self.told}")

    def ids(self, *states: str) -> set[str]:
        """Of what it has sent: the ids of what it has said to be so."""
        return {event["id"] for event in self.events if event["event"] == "state" and event["state"] in states}

    def shown(self) -> list[tuple[str, str]]:
        """Id and text of all that it has shown."""
        return [(event["id"], event["text"]) for event in self.events if event["event"] == "message"]


def _complaints(process: Process) -> list[str]:
    words = ("Traceback", "Unhandled", "#critical", "Error:")
    return [line for line in process.err if any(word in line for word in words)]


class Talk:
    """Two people and their server, to be killed.

    :param base: an empty folder; ``server_folder``: another place for what the server keeps.
    :param forgetful: what is not synced when a process is killed is lost, as after a power cut.
    :param small: each of the three has a disk of its own that can be full; that takes root.
    :raises tests.forgetful.Unavailable: there is no such disk here.
    """

    def __init__(
        self,
        base: str,
        *,
        server_folder: Path | None = None,
        server_args: Sequence[str] = (),
        client_args: Sequence[str] = (),
        forgetful: bool = False,
        small: bool = False,
    ) -> None:
        place = Place.make(base)
        self.kills = 0
        self.people: tuple[Talker, ...] = ()
        self._disks: list[SmallDisk] = []
        if small:
            try:
                for name in ("server", "profile-ann", "profile-bob"):
                    self._disks.append(SmallDisk(place.cwd / name, DISK))
            except Unavailable:
                self._let_go_of_disks()
                raise
        self._disk: ForgetfulDisk | None = None
        if forgetful:
            kept = place.home / "kept"
            kept.mkdir()
            self._disk = ForgetfulDisk(place.cwd, kept)
        with self._watched():
            self.server = KeptServer(place, server_folder or place.cwd / "server", *server_args)
        self.wire = Wire(self.server.port)
        try:
            for name in ("ann", "bob"):
                with self._watched():
                    person = Talker(place, name, self.server.link(self.wire.port), *client_args)
                self.people = (*self.people, person)
            for one, other in (self.people, self.people[::-1]):
                one.console.ready()
                one.peer = other.name
        except BaseException:
            self.close()
            raise

    def _watched(self) -> AbstractContextManager[None]:
        return contextlib.nullcontext() if self._disk is None else self._disk.watched()

    def talk(self, seconds: float) -> None:
        """Let both send."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for person in self.people:
                person.go_on()
            time.sleep(min(PACE, left))

    def kill_one(self, chance: random.Random) -> None:
        """Kill the server or one of the clients, and start it again."""
        self.kills += 1
        victims: tuple[KeptServer | Talker, ...] = (self.server, *self.people)
        victim = chance.choice(victims)
        victim.kill()
        if self._disk is not None:
            self._disk.forget(victim.folder, chance)
        with self._watched():
            victim.start()

    def fill_one(self, chance: random.Random) -> None:
        """Fill one disk. While it is full, end one of the three, let it be away for a while, and start it again.

        Whoever has ended because there was no room on its disk starts again once there is.

        :raises AssertionError: another one has ended, too.
        """
        self.kills += 1
        everybody: tuple[KeptServer | Talker, ...] = (self.server, *self.people)
        victim = chance.choice(everybody)
        disk, owner = chance.choice([*zip(self._disks, everybody, strict=True)])
        disk.fill()
        self.talk(chance.uniform(0.05, 2.0))
        victim.kill()
        self.talk(chance.uniform(0.05, 2.0))
        victim.start()
        self.talk(chance.uniform(0.05, 3.0))
        disk.empty()
        if any(one.has_ended for one in everybody if one is not owner):
            raise AssertionError(f"one whose disk was not full has ended\n{self.report()}")
        if owner.has_ended:
            owner.kill()
            owner.start()

    def settle(self, patience: float = PATIENCE) -> None:
        """Wait until everything that was queued is shown.

        :raises AssertionError: something is missing when the time is over.
        """
        end = time.monotonic() + patience
        while self.missing():
            if time.monotonic() > end:
                missing = {name: (len(ids), ids[:3]) for name, ids in self.missing().items()}
                raise AssertionError(f"missing after {patience:g} s: {missing}\n{self.report()}")
            time.sleep(0.2)
        time.sleep(1.0)  # whatever comes twice has had the time to

    def missing(self) -> dict[str, list[str]]:
        """Of each person: the ids of what was accepted or queued and is not shown at the other end."""
        found = {}
        for one, other in (self.people, self.people[::-1]):
            seen = {number for number, _ in other.shown()}
            lost = one.ids("queued", "accepted", "delivered") - one.ids("failed") - seen
            if lost:
                found[one.name] = sorted(lost)
        return found

    def check(self) -> None:
        """See that everything was shown once, unchanged, in order, and that nobody has complained.

        :raises AssertionError: it was not so.
        """
        wrong = []
        for one, other in (self.people, self.people[::-1]):
            shown = other.shown()
            texts = dict(shown)
            if any(texts[number] != text for number, text in shown):
                wrong.append(f"{other.name} was shown one id with two texts")
            firsts = list(texts.values())
            if len(set(firsts)) != len(firsts):
                wrong.append(f"{other.name} was shown one text under two ids")
            numbers = [int(text.removeprefix(f"{one.name} ")) for text in firsts]
            if numbers != sorted(numbers):
                wrong.append(f"{other.name} was shown the texts of {one.name} out of order: {numbers}")
            failed = [event for event in one.events if event.get("state") == "failed"]
            if failed:
                wrong.append(f"{one.name} was told that texts failed: {failed[:3]}")
            wrong += [f"{one.name}: {line}" for line in one.complaints + _complaints(one.console)]
        wrong += [f"server: {line}" for line in self.server.complaints + _complaints(self.server.process)]
        if wrong:
            raise AssertionError("\n".join([*wrong, self.report()]))

    def report(self) -> str:
        """What has happened so far."""
        lines = [f"{self.kills} kills"]
        for one, other in (self.people, self.people[::-1]):
            shown = other.shown()
            lines.append(
                f"{one.name}: told to send {one.told}, queued {len(one.ids('queued'))}, accepted "
                f"{len(one.ids('accepted'))}, shown {len(dict(shown))} ({len(shown) - len(dict(shown))} printed again)"
            )
        return "\n".join(lines)

    def close(self) -> None:
        """End everything."""
        for person in self.people:
            person.console.kill()
        self.server.process.kill()
        self.wire.close()
        self._let_go_of_disks()

    def _let_go_of_disks(self) -> None:
        while self._disks:
            self._disks.pop().close()


def kill_loop(
    talk: Talk, kills: int, chance: random.Random, *, cuts: int = 0, cut: float = 60.0, fills: int = 0
) -> None:
    """Kill so often, and in between stop the network and fill a disk so often, while both send.

    Then see that all has arrived.
    """
    pauses = set(chance.sample(range(kills), cuts)) if cuts else set()
    fillings = set(chance.sample(range(kills), fills)) if fills else set()
    for number in range(kills):
        talk.talk(chance.uniform(0.05, 2.0))
        if number in fillings:
            talk.fill_one(chance)
        else:
            talk.kill_one(chance)
        if number in pauses:
            talk.wire.cut()
            talk.talk(cut)
            talk.wire.mend()
        if number % 10 == 9 and sys.stderr.isatty():
            print(f"{number + 1} kills", file=sys.stderr)
    talk.talk(1.0)
    talk.settle()
    talk.check()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the loop, and say what came of it."""
    parser = argparse.ArgumentParser(prog="python -m tests.crashes", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="how often something is killed (default: 300)")
    parser.add_argument("--cuts", type=int, default=0, help="how often the network stops both ways (default: 0)")
    parser.add_argument("--cut", type=float, default=60.0, help="for how many seconds (default: 60)")
    parser.add_argument("--fills", type=int, default=0, help="at how many of the kills a disk is full; takes root")
    parser.add_argument("--forgetful", action="store_true", help="the disk forgets what was not synced")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments (default: another each time)")
    chosen = parser.parse_args(arguments)
    if max(chosen.cuts, chosen.fills) > chosen.kills:
        parser.error("there are more stops or full disks than kills")
    if chosen.forgetful and chosen.fills:
        parser.error("a disk that forgets cannot be full")
    seed = chosen.seed if chosen.seed is not None else int.from_bytes(os.urandom(4), "big")
    print(f"seed {seed}", flush=True)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as base:
        try:
            talk = Talk(base, forgetful=chosen.forgetful, small=bool(chosen.fills))
        except Unavailable as reason:
            print(reason)
            return 1
        chance = random.Random(seed)
        try:
            kill_loop(talk, chosen.kills, chance, cuts=chosen.cuts, cut=chosen.cut, fills=chosen.fills)
        except AssertionError as error:
            print(error)
            return 1
        finally:
            talk.close()
        print(talk.report())
    print(f"{time.monotonic() - began:.0f} s; nothing accepted or queued is missing, doubled or out of order")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    sys.exit(main())
