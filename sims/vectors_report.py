"""What a file of test vectors is read with, and what is said about it; :mod:`sims.vectors` is the command.

The values of such a file are made for tests and are no secrets: reports show them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from sims.errors import SimsError

T = TypeVar("T")

_MISSING = object()
_SHOWN = 32
_BEFORE = 8


class UnusableError(Exception):
    """A part of the file cannot be used at all: which one, and why."""


class Report:
    """What came of one file.

    :ivar compared: how many values were compared.
    :ivar differences: one line of ASCII for each that does not hold, and for each part that cannot be used.
    """

    def __init__(self) -> None:
        self.compared = 0
        self.differences: list[str] = []

    def same(self, where: str, expected: object, got: object) -> None:
        """Compare one value: bytes, or what JSON can say; 1, 1.0 and true are three."""
        self.compared += 1
        if isinstance(expected, str) and expected == got:
            return  # nearly always so, and much faster
        one, other = plain(expected), plain(got)
        if one != other:
            pairs = enumerate(zip(one, other, strict=False))
            differs = next((at for at, (left, right) in pairs if left != right), min(len(one), len(other)))
            start = max(0, differs - _BEFORE)
            self.fault(f"{where}: expected {_shortened(one, start)}, got {_shortened(other, start)}")

    def fault(self, text: str) -> None:
        """Take note of one line."""
        self.differences.append(one_line(text))

    @contextmanager
    def attempt(self, place: str) -> Iterator[None]:
        """Take note of what is unusable or refused at a place, and go on behind it."""
        try:
            yield
        except UnusableError as error:
            self.fault(f"{place}: {error}")
        except SimsError as error:
            self.fault(f"{place}: {error.text}")


class Part:
    """A JSON object of the file: its values are compared, or taken if they have the type that they must have.

    :ivar place: what a reader of the report looks for first, such as ``message 7``.
    """

    def __init__(self, report: Report, place: str, values: object, path: str = "") -> None:
        if not isinstance(values, dict):
            raise UnusableError("not an object")
        self.report = report
        self.place = place
        self.values: dict[str, Any] = values
        self._path = path

    def check(self, key: str, expected: object) -> None:
        """Compare a value with what it must be; bytes stand in a file as lower-case hex."""
        if isinstance(expected, bytes):
            expected = expected.hex()
        self.report.same(f"{self.place}, {self._path}{key}", expected, self.values.get(key, _MISSING))

    def take(self, key: str, kind: type[T]) -> T:
        """A value that is needed to go on.

        :raises UnusableError: when it is missing or of another type.
        """
        value = self.values.get(key, _MISSING)
        if type(value) is not kind:
            problem = "missing" if value is _MISSING else f"not of the type {kind.__name__}"
            raise UnusableError(f"{self._path}{key}: {problem}")
        return value

    def part(self, key: str) -> Part:
        """An object in this one.

        :raises UnusableError: when there is none.
        """
        return Part(self.report, self.place, self.take(key, dict), f"{self._path}{key}.")


def plain(value: object) -> str:
    """Bytes as bare hex and all else as JSON, so that two different values never have the same text."""
    if isinstance(value, bytes):
        return value.hex()
    return "nothing" if value is _MISSING else json.dumps(value, sort_keys=True)


def one_line(text: str) -> str:
    """A text as one line of ASCII."""
    return "".join(char if " " <= char <= "~" else ascii(char)[1:-1] for char in text)


def _shortened(text: str, start: int) -> str:
    """The part of a text around the place where it begins to differ from another."""
    end = start + _SHOWN
    return f"{'...' if start else ''}{text[start:end]}{'...' if end < len(text) else ''}"
