"""The observer as a function: run a scenario, get what it said and what it left behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

OBSERVER = Path(__file__).with_name("observer.py")


@pytest.fixture
def observe(tmp_path: Path) -> Callable[[str], SimpleNamespace]:
    """Run Python code in a process of its own; `.left` is empty if it left nothing behind."""
    test_launcher = os.environ.get("SANDBOXKIT_TEST_LAUNCHER")
    prelude = (
        f"from sandboxkit.runtime import launcher as _l; _l.use_binary({test_launcher!r})\n" if test_launcher else ""
    )

    def run(scenario: str) -> SimpleNamespace:
        environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
        done = subprocess.run(
            [sys.executable, str(OBSERVER), prelude + scenario],
            capture_output=True, text=True, check=True, env=environment, timeout=300,
        )  # fmt: skip
        return SimpleNamespace(**json.loads(done.stdout))

    return run
