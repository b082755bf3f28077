"""Replay transcripts with known keys and compare every value: ``python -m sims.vectors FILE...``.

Exit status 0: everything in every file holds. 1: something does not, or a file cannot be read. Each difference is one
line on standard output, and each file ends with one line that says how many values were compared.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from sims import vectors_modern, vectors_seed
from sims.errors import PeerError
from sims.strictjson import parse_json
from sims.vectors_report import Part, Report, one_line

#: What a file is, told by a key that no other format has; and who checks it.
_FORMATS: dict[str, Callable[[Part], None]] = {"messages": vectors_seed.check, "sessions": vectors_modern.check}


def check(document: object) -> Report:
    """Check one parsed file, of whatever known format."""
    report = Report()
    with report.attempt("the file"):
        whole = Part(report, "the file", document)
        for key, checker in _FORMATS.items():
            if key in whole.values:
                checker(whole)
                break
        else:
            report.fault(f"the file: of no known format: it has no key named {' or '.join(_FORMATS)}")
    return report


def _check_file(path: str) -> Report:
    report = Report()
    try:
        document = parse_json(Path(path).read_bytes())
    except OSError as error:
        report.fault(f"cannot be read: {error.strerror}")
    except PeerError as error:
        report.fault(f"cannot be used: {error.text}")
    else:
        report = check(document)
    return report


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; gives its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m sims.vectors",
        description="Replay transcripts with known keys: work out every value again and compare it with the file.",
        epilog="The exit status is 0 if every value of every file holds, else 1.",
    )
    parser.add_argument("files", metavar="FILE", nargs="+", help="a transcript in JSON, such as seed-a.json")
    status = 0
    for path in parser.parse_args(arguments).files:
        report = _check_file(path)
        for line in report.differences:
            print(f"{one_line(path)}: {line}")
        outcome = _count(len(report.differences), "difference") if report.differences else "all hold"
        print(f"{one_line(path)}: {_count(report.compared, 'value')} compared, {outcome}")
        if report.differences:
            status = 1
    return status


if __name__ == "__main__":
    sys.exit(main())
