"""How often somebody may do something: buckets of tokens, and what one address may cost."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from ipaddress import IPv6Address, ip_address
from math import ceil, inf
from typing import Generic, TypeVar

from sims.server.limits import Connections, Rate

K = TypeVar("K", bound=Hashable)

#: An IPv4 address, as the system writes it, where it may also be an IPv6 one: most are of this kind.
_IPV4 = re.compile(r"(?:::ffff:)?([0-9]{1,3}(?:\.[0-9]{1,3}){3})", re.ASCII)


class Bucket:
    """So many tokens a second, at most ``burst`` of them saved up."""

    __slots__ = ("_rate", "_since", "_tokens")

    def __init__(self, rate: Rate, now: float) -> None:
        self._rate = rate
        self._tokens = rate.burst
        self._since = now

    def _fill(self, now: float) -> None:
        if self._rate.second == inf or self._rate.burst == inf:
            self._tokens = self._rate.burst
        else:
            gained = max(0.0, now - self._since) * self._rate.second
            self._tokens = min(self._rate.burst, self._tokens + gained)
        self._since = now

    def is_full(self, now: float) -> bool:
        """Whether it is as if it had never been used."""
        self._fill(now)
        return self._tokens >= self._rate.burst

    def has_one(self, now: float) -> bool:
        """Whether there is a token to take."""
        self._fill(now)
        return self._tokens >= 1

    def take(self, now: float, count: float = 1) -> float:
        """Take tokens, on credit too; gives the seconds until the debt is paid."""
        self._fill(now)
        self._tokens -= count
        return max(0.0, -self._tokens / self._rate.second)

    def try_take(self, now: float) -> float:
        """Take a token if there is one, and give 0; or else the seconds until there is."""
        if self.has_one(now):
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate.second


class Buckets(Generic[K]):
    """A bucket for each of many; those that are full again are forgotten."""

    _PRUNE = 1024

    def __init__(self, rate: Rate) -> None:
        self._rate = rate
        self._buckets: dict[K, Bucket] = {}
        self._prune_at = self._PRUNE

    def __len__(self) -> int:
        return len(self._buckets)

    def of(self, key: K, now: float) -> Bucket:
        """The bucket of one of them."""
        found = self._buckets.get(key)
        if found is None:
            if len(self._buckets) >= self._prune_at:
                self._buckets = {key: bucket for key, bucket in self._buckets.items() if not bucket.is_full(now)}
                self._prune_at = max(self._PRUNE, 2 * len(self._buckets))
            found = self._buckets[key] = Bucket(self._rate, now)
        return found


def whole_seconds(seconds: float) -> int:
    """As ``after`` of an error says it: at least 1."""
    return max(1, min(ceil(seconds), 2**32 - 1))


class Addresses:
    """Who has how many connections: an IPv4 address, or the /64 of an IPv6 address, which is one customer's."""

    def __init__(self, limit: Connections, seconds: Callable[[], float]) -> None:
        """Begin; ``seconds`` is a clock that does not go backwards."""
        self._limit = limit
        self._seconds = seconds
        self._open: dict[str, int] = {}
        self._connects: Buckets[str] = Buckets(Rate(limit.minute / 60, limit.minute))
        self._failures: Buckets[str] = Buckets(Rate(limit.failed / 60, limit.failed))

    def admit(self, address: str) -> bool:
        """Whether an address may have one more connection; then :meth:`left` must be called once it is closed."""
        net, now = network(address), self._seconds()
        if self._open.get(net, 0) >= self._limit.at_once or not self._failures.of(net, now).has_one(now):
            return False
        if self._connects.of(net, now).try_take(now):
            return False
        self._open[net] = self._open.get(net, 0) + 1
        return True

    def left(self, address: str) -> None:
        """A connection is closed."""
        net = network(address)
        left = self._open.get(net, 0) - 1
        if left > 0:
            self._open[net] = left
        else:
            self._open.pop(net, None)

    def failed(self, address: str) -> None:
        """A connection has come to nothing."""
        net, now = network(address), self._seconds()
        self._failures.of(net, now).take(now)


def network(address: str) -> str:
    """What counts as one: an IPv4 address, an IPv6 /64; anything else is what it is."""
    plain = _IPV4.fullmatch(address)
    if plain is not None:
        return plain[1]
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(IPv6Address(int(found) >> 64 << 64)) + "/64"
    return str(found)
