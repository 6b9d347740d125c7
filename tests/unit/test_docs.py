"""The documentation is true: every runnable block is run, in its page's order, and prints what the page says."""

from __future__ import annotations

import contextlib
import doctest
import importlib
import io
import os
import pkgutil
import re
from pathlib import Path

import pytest

import sandboxkit
from sandboxkit.runtime.cgroup_layout import current_layout

REPOSITORY = Path(__file__).resolve().parent.parent.parent
BLOCK = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PAGES = [*sorted((REPOSITORY / "docs").glob("*.md")), REPOSITORY / "README.md"]


def matches(expected: str, printed: str) -> bool:
    """A line of three dots in the page stands for anything."""
    pattern = "".join("(?s:.*)" if line == "...\n" else re.escape(line) for line in expected.splitlines(keepends=True))
    return re.fullmatch(pattern, printed) is not None


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, busybox_tar, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    os.symlink(busybox_tar, "busybox.tar")
    has_memory = "memory" in current_layout().controllers
    blocks = BLOCK.findall(page.read_text(encoding="utf-8"))
    scope: dict[str, object] = {}
    for position, (language, options, code) in enumerate(blocks):
        if language != "python" or ("needs-cgroup" in options and not has_memory):
            continue
        assert "runnable" in options or page.name == "README.md", "a block that nobody runs"
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, f"{page.name} block {position}", "exec"), scope)
        following = blocks[position + 1] if position + 1 < len(blocks) else ("", "", "")
        if following[:2] == ("text", "output"):
            assert matches(following[2], printed.getvalue()), printed.getvalue()


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("name", [module.name for module in pkgutil.walk_packages(sandboxkit.__path__, "sandboxkit.")])
def test_docstrings(name):
    if name.endswith("__main__") or name.endswith("_native"):
        return
    result = doctest.testmod(importlib.import_module(name), extraglobs=vars(sandboxkit))
    assert result.failed == 0
