"""Rules of the house that a program can check (see docs/architecture.md)."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("pipeline", "builds", "agents", "dashboard", "autoscaler", "ciserver")
MODULES = sorted(
    path
    for package in PACKAGES
    for path in (ROOT / package).rglob("*.py")
    if "migrations" not in path.parts
)
READS_ENVIRONMENT = {"ciserver/env.py", "agents/options.py", "autoscaler/options.py"}
BANNED_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
LONGEST_MODULE = 600


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def parents(tree: ast.AST) -> Iterator[tuple[ast.AST, ast.AST]]:
    """Every node with its parent."""
    for parent in ast.walk(tree):
        for child in ast.iter_child_nodes(parent):
            yield child, parent


def is_environ(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Attribute)
        and node.attr in ("environ", "environb")
        and isinstance(node.value, ast.Name)
        and node.value.id == "os"
    )


def names_a_variable(tree: ast.AST) -> Iterator[int]:
    """Lines where a variable is read by its name. Handing the environment on as a whole is not."""
    for node, parent in parents(tree):
        if is_environ(node) and reads_by_name(parent):
            yield node.lineno
        if isinstance(node, ast.Attribute) and node.attr == "getenv":
            yield node.lineno


def reads_by_name(parent: ast.AST) -> bool:
    if isinstance(parent, ast.Subscript):
        return isinstance(parent.slice, ast.Constant)
    return isinstance(parent, ast.Attribute) and parent.attr in ("get", "pop")


def passes_over_an_error(tree: ast.AST) -> Iterator[int]:
    """Lines of a bare except, and of one that does nothing."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and (
            node.type is None or isinstance(node.body[0], ast.Pass)
        ):
            yield node.lineno


def found(rule: Callable[[ast.AST], Iterator[int]], *words: str) -> list[str]:
    """Where modules break a rule, which they cannot without one of these words in their text."""
    return [
        f"{name(path)}:{line}"
        for path in MODULES
        if any(word in path.read_text(encoding="utf-8") for word in words)
        for line in rule(parse(path))
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("a = os.environ['A']", [1]),
        ("a = os.environ.get('A')", [1]),
        ("a()\nb = os.getenv('A')", [2]),
        ("a({**os.environ})", []),
    ],
)
def test_what_reading_by_name_is(text: str, lines: list[int]) -> None:
    assert list(names_a_variable(ast.parse(text))) == lines


def test_the_environment_is_read_where_settings_are() -> None:
    places = found(names_a_variable, "environ", "getenv")

    assert [place for place in places if place.split(":")[0] not in READS_ENVIRONMENT] == []


def test_modules_are_short_nouns() -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in MODULES}

    assert [name(path) for path in MODULES if path.stem in BANNED_NAMES] == []
    assert {name(path): n for path, n in lengths.items() if n >= LONGEST_MODULE} == {}


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("try:\n  a()\nexcept:\n  b()", [3]),
        ("try:\n  a()\nexcept OSError:\n  pass", [3]),
        ("try:\n  a()\nexcept OSError:\n  b()", []),
    ],
)
def test_what_passing_over_is(text: str, lines: list[int]) -> None:
    assert list(passes_over_an_error(ast.parse(text))) == lines


def test_no_error_is_passed_over() -> None:
    assert found(passes_over_an_error, "except") == []


def test_only_transitions_assign_a_status_of_a_row() -> None:
    assigning = {
        name(path)
        for path in MODULES
        if path.is_relative_to(ROOT / "builds") or path.is_relative_to(ROOT / "dashboard")
        for node in ast.walk(parse(path))
        if isinstance(node, ast.Assign | ast.AnnAssign | ast.AugAssign)
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Attribute) and target.attr == "status"
    }

    assert assigning <= {"builds/transitions.py"}


def test_the_embedded_supervisor_imports_no_django() -> None:
    imported = {
        module
        for path in (ROOT / "ciserver" / "embedded").glob("*.py")
        for node in ast.walk(parse(path))
        for module in _imports(node)
    }

    assert not {module for module in imported if module.split(".")[0] in ("django", "builds")}


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module:
        return [node.module]
    return []


def pins(file: str) -> dict[str, str]:
    """Package → version of a requirements file, names normalised."""
    found = re.findall(
        r"^([\w.-]+)(?:\[\w+\])?==([^\s;]+)", (ROOT / file).read_text(), re.MULTILINE
    )
    return {re.sub(r"[-_.]+", "-", package).lower(): version for package, version in found}


@pytest.mark.parametrize(
    "file", ["requirements.txt", "requirements-agent.txt", "requirements-dev.txt"]
)
def test_every_requirement_is_pinned_as_the_constraints_say(file: str) -> None:
    lines = (ROOT / file).read_text().splitlines()
    known = r"#.*|-[rc] .*|[\w.\[\]-]+==[^\s;]+(; python_version < \"[\d.]+\")?"
    loose = [line for line in lines if line and not re.fullmatch(known, line)]
    constraints = pins("constraints.txt")

    assert loose == []
    assert {
        package: version
        for package, version in pins(file).items()
        if constraints.get(package) != version
    } == {}


def test_front_end_packages_are_pinned_by_hash_and_name_no_registry() -> None:
    lock = json.loads((ROOT / "package-lock.json").read_text())
    packages = {path: entry for path, entry in lock["packages"].items() if path}

    assert all("integrity" in entry for entry in packages.values())
    assert not any("resolved" in entry for entry in packages.values())
