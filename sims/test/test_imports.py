"""The house rules of who may import whom, read from the sources: imports point down, wings stay apart.

Every module stands on a floor and imports only from floors below it, or from its own room. The imports of functions
and of type checkers count like all others. What is implied by a name (``sims`` and ``sims.client`` by
``sims.client.seed``) does not count.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

import sims

#: The rooms of each floor, from the ground up. A room is a module or a package; packages are named as a whole.
FLOORS: tuple[tuple[str, ...], ...] = (
    ("sims.errors", "sims.version"),
    ("sims.specs", "sims.strictjson", "sims.strictmsgpack", "sims.names"),
    ("sims.messages", "sims.inner", "sims.frames"),
    ("sims.wire",),
    ("sims.crypto", "sims.transport"),
    ("sims.tls",),
    ("sims.client", "sims.server"),
    ("sims.console",),
    ("sims",),
    ("sims.tap", "sims.admin", "sims.vectors", "sims.testing", "sims.asyncio"),
)
#: A room of several modules: those whose name begins so, beside the module itself.
PARTS = {"sims.vectors": "sims.vectors_", "sims.tap": "sims.tap_"}

#: What imports without a statement.
_CALLED = ("import_module", "__import__")

#: Pairs that keep apart though one stands above the other.
APART = tuple(("sims.crypto", room) for room in ("sims.wire", "sims.messages", "sims.inner", "sims.frames"))

#: Who may import what is not ours; a room stands for all that is in it.
RESERVED: dict[str, frozenset[str]] = {
    # The certificate is TLS's alone, and made of X.509: nothing of the protocol's is in it.
    "cryptography": frozenset({"sims.crypto.primitives", "sims.crypto.certificate"}),
    "OpenSSL": frozenset({"sims.tls"}),
    "twisted": frozenset(
        {
            "sims.transport",
            "sims.tls",
            "sims.client.connection",
            "sims.client.driver",
            "sims.client.driver_connection",
            "sims.client.driver_shown",
            "sims.client.waiters",
            "sims.client.modern_connection",
            "sims.server.connection",
            "sims.server.modern_connection",
            "sims.server.service",
            "sims.server.bus",
            "sims.server.nats",
            "sims.server.postgres",
            "sims.console",
            "sims.tap",
            "sims.admin",
            "sims.asyncio",
            "sims.testing",
        }
    ),
    "prompt_toolkit": frozenset({"sims.console"}),
}
#: Modules that import nothing at all, because something reads them before the rest is there.
ALONE = frozenset({"sims.version"})
TESTS = "sims.test"


class Module(NamedTuple):
    """A module's source and whether it is a package."""

    source: str
    is_package: bool = False


def modules_in(folder: Path) -> dict[str, Module]:
    """Every module of the package in a folder, without the tests, by name."""
    found = {}
    for path in sorted(folder.rglob("*.py")):
        parts = [folder.name, *path.relative_to(folder).with_suffix("").parts]
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        if not _is_in(name, TESTS):
            found[name] = Module(path.read_text(encoding="utf-8"), is_package)
    return found


def imports_of(name: str, module: Module, known: Mapping[str, Module]) -> list[str]:
    """What a module imports, wherever in it: modules by their full names; of other packages, what is named."""
    found: list[str] = []
    package = name if module.is_package else name.rpartition(".")[0]
    for node in _nodes(module.source):
        if isinstance(node, ast.Import):
            found.extend(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                is_module = whole in known or whole == TESTS or base == TESTS
                found.append(whole if is_module else base)
        elif isinstance(node, ast.Call):
            found.extend(_imported_by_call(node))
    return list(dict.fromkeys(found))


def _nodes(source: str) -> Iterator[ast.AST]:
    """Whatever may import something: all statements, and expressions too where a name in them could."""
    tree = ast.parse(source)
    return ast.walk(tree) if any(name in source for name in _CALLED) else _statements(tree)


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt | ast.ExceptHandler | ast.match_case):
            yield child
            yield from _statements(child)


def _imported_by_call(node: ast.Call) -> list[str]:
    called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if called not in _CALLED or not node.args:
        return []
    what = node.args[0]
    return [what.value] if isinstance(what, ast.Constant) and isinstance(what.value, str) else []


def _is_in(name: str, room: str) -> bool:
    return name == room or name.startswith(f"{room}.")


def _room(name: str) -> tuple[int, str] | None:
    """The floor and the room of a module; the face of the library is a room without what stands in it."""
    for floor, rooms in enumerate(FLOORS):
        for room in rooms:
            part = PARTS.get(room)
            if name == room or (room != "sims" and _is_in(name, room)) or (part and name.startswith(part)):
                return floor, room
    return None


def _may(name: str, allowed: frozenset[str]) -> bool:
    found = _room(name)
    return any(_is_in(name, room) or (found is not None and found[1] == room) for room in allowed)


def violations(modules: Mapping[str, Module]) -> list[str]:
    """What in these modules breaks the rules, a sentence for each."""
    found = []
    graph: dict[str, set[str]] = {}
    for name, module in modules.items():
        imported = imports_of(name, module, modules)
        graph[name] = {other for other in imported if other in modules}
        if name in ALONE and imported:
            found.append(f"{name} imports {imported[0]}, and is to import nothing")
        if _room(name) is None:
            found.append(f"{name} has no floor")
        for other in imported:
            found.extend(_violation(name, other))
    found.extend(f"a cycle: {' '.join(cycle)}" for cycle in cycles(graph))
    return found


def _violation(name: str, other: str) -> Iterator[str]:
    top = other.partition(".")[0]
    if top in RESERVED and not _may(name, RESERVED[top]):
        yield f"{name} imports {other}, and may not import {top}"
    if top != "sims":
        return
    if _is_in(other, TESTS):
        yield f"{name} imports {other}, which is for tests"
        return
    here, there = _room(name), _room(other)
    if here is None:
        return
    if there is None:
        yield f"{name} imports {other}, which has no floor"
    elif here[1] == there[1]:
        return
    elif here[0] < there[0]:
        yield f"{name} imports {other}, which stands above it"
    elif here[0] == there[0]:
        yield f"{name} imports {other}, which stands beside it"
    elif any({here[1], there[1]} == {*pair} for pair in APART):
        yield f"{name} imports {other}, and the two keep apart"


def cycles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of more than one module, and modules that import themselves (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = stack[stack.index(node) :]
            del stack[stack.index(node) :]
            if len(component) > 1 or node in graph[node]:
                found.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return found


class TheHouse(SynchronousTestCase):
    def setUp(self) -> None:
        self.modules = modules_in(Path(sims.__file__).parent)

    def test_keeps_its_rules(self) -> None:
        self.assertEqual(violations(self.modules), [])

    def test_was_read(self) -> None:
        # Or the test above would show nothing.
        self.assertGreater(len(self.modules), 20)
        self.assertIn("sims", self.modules)
        self.assertFalse([name for name in self.modules if name.startswith("sims.test.")])
        for name, other in (
            ("sims.wire", "sims.messages"),
            ("sims.crypto.seed", "sims.crypto.primitives"),
            ("sims.crypto.primitives", "cryptography.hazmat.primitives.asymmetric"),
            ("sims.server.connection", "sims.wire"),
            ("sims.tap_client", "sims.console.terminal"),  # within a function
            ("sims", "sims.client.connection"),
        ):
            self.assertIn(other, imports_of(name, self.modules[name], self.modules), name)
        primitives = imports_of("sims.crypto.primitives", self.modules["sims.crypto.primitives"], self.modules)
        self.assertTrue([name for name in primitives if name.startswith("cryptography.hazmat.")])

    def test_has_no_module_of_more_than_one_room(self) -> None:
        for name in self.modules:
            rooms = [room for rooms in FLOORS for room in rooms if room != "sims" and _is_in(name, room)]
            self.assertLessEqual(len(rooms), 1, name)


GOOD = {
    "sims": Module('"""Doc."""\nfrom sims.client.connection import A\nfrom sims import errors', is_package=True),
    "sims.errors": Module("from enum import Enum"),
    "sims.version": Module('__version__ = "1"'),
    "sims.specs": Module("from sims.errors import B"),
    "sims.strictjson": Module("import json\nfrom .errors import B"),
    "sims.messages": Module("from msgspec import Struct\nfrom sims.strictjson import C"),
    "sims.wire": Module("from sims import messages\nimport sims.strictjson, sims.errors"),
    "sims.transport": Module("from twisted.protocols.basic import LineReceiver\nfrom sims.wire import D"),
    "sims.crypto": Module("", is_package=True),
    "sims.crypto.primitives": Module("from cryptography.hazmat.primitives import hashes\nfrom ..errors import B"),
    "sims.crypto.seed": Module("from . import primitives\nfrom .primitives import E\nfrom sims.specs import F"),
    "sims.client": Module("", is_package=True),
    "sims.client.events": Module(""),
    "sims.client.seed": Module("from sims import wire\nfrom sims.crypto.seed import G\nfrom sims.client import events"),
    "sims.client.connection": Module("from twisted.internet import defer\nfrom . import seed\nimport sims.transport"),
    "sims.server": Module("", is_package=True),
    "sims.server.relay": Module("from sims.wire import H"),
    "sims.server.connection": Module("import twisted\nfrom .relay import I\nfrom ..crypto import seed"),
    "sims.server.service": Module("from twisted.application import service\nfrom .connection import J"),
    "sims.console": Module("", is_package=True),
    "sims.console.view": Module("from sims.client import events\nfrom twisted.python import failure"),
    "sims.console.terminal": Module("import prompt_toolkit\nfrom .view import K"),
    "sims.vectors": Module("from sims import wire, vectors_more\nfrom sims.crypto import seed"),
    "sims.vectors_more": Module("from sims.server.relay import L"),
    "sims.tap": Module(
        "import twisted.python\ndef f():\n    from sims.console import view\n    from sims.server import service"
    ),
}

#: What is to be said of an import: one more line in one module, and what it imports.
BAD: dict[str, list[tuple[str, str, str]]] = {
    "which stands above it": [
        ("sims.errors", "from sims.specs import X", "sims.specs"),
        ("sims.errors", "from sims import wire", "sims.wire"),
        ("sims.errors", "from . import wire", "sims.wire"),
        ("sims.errors", "import sims.wire as w", "sims.wire"),
        ("sims.specs", "from sims.messages import X", "sims.messages"),
        ("sims.strictjson", "import sims.wire", "sims.wire"),
        ("sims.messages", "import sims.wire", "sims.wire"),
        ("sims.wire", "from sims.transport import X", "sims.transport"),
        ("sims.wire", "from sims.crypto import seed", "sims.crypto.seed"),
        ("sims.wire", "from sims.crypto.seed import X", "sims.crypto.seed"),
        ("sims.messages", "import sims.crypto", "sims.crypto"),
        ("sims.transport", "import sims.client.seed", "sims.client.seed"),
        ("sims.crypto.seed", "import sims.server", "sims.server"),
        ("sims.client.seed", "import sims.console.view", "sims.console.view"),
        ("sims.server.relay", "import sims.console", "sims.console"),
        ("sims.server.service", "import sims.tap", "sims.tap"),
        ("sims.console.view", "from sims import tap", "sims.tap"),
        ("sims.console.view", "from sims import A", "sims"),
        ("sims.client.seed", "import sims", "sims"),
        ("sims.client", "from sims import A", "sims"),
        ("sims", "from sims import tap", "sims.tap"),
        ("sims", "from .tap import X", "sims.tap"),
        ("sims.wire", "def f():\n    def g():\n        import sims.tap", "sims.tap"),
        ("sims.wire", "class C:\n    import sims.tap", "sims.tap"),
        ("sims.wire", "if TYPE_CHECKING:\n    import sims.tap", "sims.tap"),
        ("sims.wire", "try:\n    pass\nfinally:\n    import sims.tap", "sims.tap"),
        ("sims.wire", "async def f():\n    import sims.tap", "sims.tap"),
        ("sims.wire", "importlib.import_module('sims.tap')", "sims.tap"),
        ("sims.wire", "import_module('sims.tap').x", "sims.tap"),
        ("sims.wire", "__import__('sims.tap')", "sims.tap"),
        ("sims.wire", "from os import path, sep; import os, sims.tap", "sims.tap"),
    ],
    "which stands beside it": [
        ("sims.client.seed", "import sims.server.relay", "sims.server.relay"),
        ("sims.client.seed", "from ..server import relay", "sims.server.relay"),
        ("sims.client.seed", "from sims import server", "sims.server"),
        ("sims.server.relay", "from sims.client import events", "sims.client.events"),
        ("sims.crypto.seed", "import sims.transport", "sims.transport"),
        ("sims.transport", "import sims.crypto.seed", "sims.crypto.seed"),
        ("sims.specs", "import sims.strictjson", "sims.strictjson"),
        ("sims.errors", "import sims.version", "sims.version"),
        ("sims.vectors", "import sims.tap", "sims.tap"),
        ("sims.vectors_more", "import sims.tap", "sims.tap"),
        ("sims.tap", "import sims.vectors", "sims.vectors"),
    ],
    "and the two keep apart": [
        ("sims.crypto.seed", "from sims import wire", "sims.wire"),
        ("sims.crypto.seed", "from sims.messages import X", "sims.messages"),
        ("sims.crypto.primitives", "import sims.wire", "sims.wire"),
    ],
    "and may not import cryptography": [
        ("sims.crypto.seed", "import cryptography", "cryptography"),
        ("sims.crypto.seed", "from cryptography.hazmat.primitives import hashes", "cryptography.hazmat.primitives"),
        ("sims.transport", "def f():\n    from cryptography.x509 import Name", "cryptography.x509"),
        ("sims.tap", "import cryptography.fernet", "cryptography.fernet"),
    ],
    "and may not import twisted": [
        ("sims.wire", "import twisted", "twisted"),
        ("sims.errors", "import twisted", "twisted"),
        ("sims.crypto.seed", "import twisted", "twisted"),
        ("sims.client.seed", "from twisted import internet", "twisted"),
        ("sims.server.relay", "def f():\n    from twisted.internet import reactor", "twisted.internet"),
        ("sims.vectors", "import twisted.python", "twisted.python"),
        ("sims.vectors_more", "import twisted", "twisted"),
        ("sims", "import twisted", "twisted"),
    ],
    "and may not import prompt_toolkit": [
        ("sims.client.events", "import prompt_toolkit", "prompt_toolkit"),
    ],
    "and is to import nothing": [
        ("sims.version", "import re", "re"),
        ("sims.version", "from __future__ import annotations", "__future__"),
    ],
    "which is for tests": [
        ("sims.tap", "from sims.test import builders", "sims.test.builders"),
        ("sims.wire", "from .test.builders import X", "sims.test.builders"),
    ],
    "which has no floor": [
        ("sims.tap", "import sims.attic.box", "sims.attic.box"),
    ],
}
#: What else is to be said of modules with one more line.
BAD_HOUSES: list[tuple[str, str, str]] = [
    ("sims.attic", "", "sims.attic has no floor"),
    ("sims.tapestry", "", "sims.tapestry has no floor"),
    ("sims.crypto.primitives", "from sims.crypto.seed import X", "a cycle: sims.crypto.primitives sims.crypto.seed"),
    (
        "sims.client.events",
        "from . import connection",
        "a cycle: sims.client.connection sims.client.events sims.client.seed",
    ),
    ("sims.vectors_more", "def f():\n    import sims.vectors", "a cycle: sims.vectors sims.vectors_more"),
    ("sims.server.relay", "from .relay import X", "a cycle: sims.server.relay"),
]


def with_line(name: str, line: str) -> list[str]:
    """What is said of the good modules when one of them, or another, has one more line."""
    module = GOOD.get(name, Module(""))
    return violations({**GOOD, name: module._replace(source=f"{module.source}\n{line}\n")})


class TheRules(SynchronousTestCase):
    """The reading of imports itself: made-up modules, in which one line breaks a rule."""

    def test_are_kept_by_good_modules(self) -> None:
        self.assertEqual(violations(GOOD), [])

    def test_are_seen_to_be_broken(self) -> None:
        for rule, cases in BAD.items():
            for name, line, other in cases:
                said = f"{name} imports {other}, {rule}"
                self.assertIn(said, with_line(name, line), line)

    def test_are_seen_to_be_broken_by_a_house(self) -> None:
        for name, line, said in BAD_HOUSES:
            self.assertIn(said, with_line(name, line), line)

    def test_are_not_broken_by_what_looks_like_it(self) -> None:
        for name, line in (
            ("sims.client", "from .seed import X\nfrom . import seed"),
            ("sims.wire", "'import sims.tap'"),
            ("sims.wire", "# import sims.tap"),
            ("sims.wire", "import twistedness, cryptographer.hazmat"),
            ("sims.wire", "from os import twisted"),
            ("sims.wire", "find('sims.tap'); import_module(name); import_module()"),
            ("sims.console.pipe", "import twisted"),
            ("sims.server.nats", "import twisted"),
            ("sims.crypto.ratchet", "from .primitives import X"),
            ("sims.tap", "from sims import A\nimport sims"),
        ):
            self.assertEqual(with_line(name, line), [], f"{name}: {line}")

    def test_know_every_circle(self) -> None:
        for graph, expected in (
            ({"a": {"b"}, "b": {"c"}, "c": set()}, []),
            ({"a": {"b"}, "b": {"c"}, "c": {"a"}}, [["a", "b", "c"]]),
            ({"a": {"a"}}, [["a"]]),
            ({"a": {"b"}, "b": {"a"}, "c": {"d", "a"}, "d": {"c"}}, [["a", "b"], ["c", "d"]]),
            ({"a": {"b", "c"}, "b": {"d"}, "c": {"d"}, "d": set()}, []),
            ({"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": {"a"}}, [["a", "b", "c", "d"]]),
        ):
            self.assertEqual(sorted(cycles(graph)), expected)
