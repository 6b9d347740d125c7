"""What all tests share: skips that count, test builds of the launcher, the fixtures that came from elsewhere."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
MUST_RUN = os.environ.get("SANDBOXKIT_MUST_RUN") == "1"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Under SANDBOXKIT_MUST_RUN=1 a skip is a failure: what CI does not run, nobody knows to work."""
    report = yield
    if MUST_RUN and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, although everything must run: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _launcher_under_test() -> None:
    path = os.environ.get("SANDBOXKIT_TEST_LAUNCHER")
    if path:
        from sandboxkit.runtime import launcher

        launcher.use_binary(path)


@pytest.fixture(scope="session")
def launcher_with_faults(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The launcher built with fault injection."""
    sys.path.insert(0, str(REPOSITORY / "src" / "_native"))
    import build_launcher

    path = tmp_path_factory.mktemp("faults") / "launcher"
    build_launcher.build(path, faults=True)
    return path


@pytest.fixture(scope="session")
def busybox_tar() -> Path:
    """A tar that `docker export` wrote of a busybox container."""
    fixtures = Path(os.environ.get("SANDBOXKIT_FIXTURES", REPOSITORY.parent / "shared" / "fixtures"))
    path = fixtures / "busybox-export.tar"
    if not path.exists():
        pytest.skip(f"no {path.name}: set SANDBOXKIT_FIXTURES to the directory that holds it")
    return path
