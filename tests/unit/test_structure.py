"""The shape of the code: imports go down, one module touches the extension, a module is one readable thing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent.parent
PACKAGE = REPOSITORY / "src" / "sandboxkit"

# Lower may not import higher. Modules of one rank may, as long as there is no circle.
RANKS = {
    "errors": 0, "spec": 1, "result": 2, "limits_plan": 3, "plan": 4, "controls": 5,
    "runtime": 6, "files": 7, "sandbox": 8, "cli": 9, "__main__": 10, "__init__": 10,
}  # fmt: skip


def modules(package: Path) -> dict[str, Path]:
    names = {}
    for path in package.rglob("*.py"):
        parts = list(path.relative_to(package).with_suffix("").parts)
        if parts[-1] == "__init__" and len(parts) > 1:
            parts.pop()
        names[".".join(parts)] = path
    return names


def imports(path: Path) -> Iterator[str]:
    """What it imports of the package at run time, without the package's name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "sandboxkit":
            inside = node.module.removeprefix("sandboxkit").lstrip(".")
            yield from (f"{inside}.{alias.name}".lstrip(".") for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.removeprefix("sandboxkit.") for alias in node.names if alias.name.startswith("sandboxkit.")
            )


def violations(package: Path) -> list[str]:
    found = []
    known = modules(package)
    graph: dict[str, set[str]] = {}
    for name, path in known.items():
        rank = RANKS.get(name.split(".")[0])
        if rank is None:
            found.append(f"{name}: has no rank")
            continue
        graph[name] = set()
        for target in imports(path):
            if target.split(".")[0] == "_native":
                if name != "runtime.native":
                    found.append(f"{name}: imports the extension")
                continue
            other = target if target in known else target.rpartition(".")[0]
            graph[name].add(other)
            if RANKS.get(other.split(".")[0], 99) > rank:
                found.append(f"{name}: imports {other}, which is above it")
        if {"utils", "helpers", "common", "misc"} & set(name.split(".")):
            found.append(f"{name}: a name that says nothing")
        if len(path.read_text().splitlines()) > 450:
            found.append(f"{name}: longer than 450 lines")
    found += [f"{name}: in a circle of imports" for name in graph if _reaches(graph, name, name)]
    return found


def _reaches(graph: dict[str, set[str]], start: str, goal: str) -> bool:
    seen, pending = set(), list(graph[start] - {start})
    while pending:
        current = pending.pop()
        if current == goal:
            return True
        if current not in seen:
            seen.add(current)
            pending += graph.get(current, ())
    return False


def test_the_package():
    assert violations(PACKAGE) == []


@pytest.mark.parametrize(
    ("module", "text", "complaint"),
    [
        ("spec/x.py", "from sandboxkit.runtime.native import lib", "which is above it"),
        ("files.py", "from sandboxkit._native import lib", "imports the extension"),
        ("unranked.py", "", "has no rank"),
        ("spec/utils.py", "", "says nothing"),
        ("spec/long.py", "\n" * 451, "longer than"),
        ("spec/a.py", "from sandboxkit.spec.b import x", "in a circle"),
    ],
)
def test_the_checker_finds_what_it_looks_for(tmp_path, module, text, complaint):
    for name, content in (("runtime/native.py", ""), ("spec/b.py", "from sandboxkit.spec.a import y"), (module, text)):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
    assert any(complaint in line for line in violations(tmp_path))


def test_c_files_hold_one_concept_each():
    lengths = {path.name: len(path.read_text().splitlines()) for path in (REPOSITORY / "src" / "_native").glob("*.c")}
    assert {name: length for name, length in lengths.items() if length > 700} == {}
