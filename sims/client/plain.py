"""What others wrote, as it can be shown: nothing in it acts on a terminal, or passes for a line of ours."""

from __future__ import annotations

import time
import unicodedata

#: Characters of the category "format" that make text what it should be: the joiners of scripts and of emoji.
_JOINERS = {"\u200c", "\u200d"}
_MAX_NAME = 32
# What no calendar has is not shown as a time.
_MOST_TIME = 2**34


def clean(text: str) -> str:
    """What a peer wrote, without what would act on a terminal or disguise a line: control and bidi characters.

    Further lines are indented, so that no line of a text can be taken for one of ours.
    """
    lines = text.replace("\r\n", "\n").replace("\u2028", "\n").replace("\u2029", "\n").split("\n")
    kept = ("".join(char for char in line.replace("\t", " ") if _is_plain(char)) for line in lines)
    return "\n    ".join(kept)


def _is_plain(char: str) -> bool:
    category = unicodedata.category(char)
    return category not in ("Cc", "Cf", "Cs", "Co", "Cn") or char in _JOINERS


def clean_name(name: str) -> str:
    """A name as it is shown: short, and without the signs that our own lines are made of."""
    return "".join("_" if char in "()[]*!>:\n" else char for char in clean(name)[:_MAX_NAME])


def clock(seconds: int) -> str:
    """A time in Unix seconds, to read: UTC."""
    if not 0 <= seconds < _MOST_TIME:
        return "?"
    return time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(seconds))
