"""Options of the whole suite."""

from __future__ import annotations

import atexit
import gc
import os
import shutil
import sys
import tempfile

import pytest
from hypothesis import settings

from tests.sid_root import SidRoot, find

os.environ["XDG_DATA_HOME"] = tempfile.mkdtemp(prefix="tridsl-tests-")  # what this machine was tuned to must not decide what tests run
atexit.register(shutil.rmtree, os.environ["XDG_DATA_HOME"], ignore_errors=True)
for variable in ("TRIDSL_CACHE", "TRIDSL_PERSONALITY", "TRIDSL_TIMEOUT", "PEANO_INSTALL_DIR"):
    os.environ.pop(variable, None)

BYTECODE = os.environ.setdefault("TRIDSL_TESTS_BYTECODE", os.path.join(os.environ["XDG_DATA_HOME"], "bytecode"))
"""Of the first process, which ends last: one folder for all workers."""

SID = find()
"""Before tests give the user's cache other places."""

settings.register_profile("suite", deadline=None)  # speed is measured in tests/bench, never asserted
settings.load_profile("suite")


@pytest.fixture(autouse=True, scope="session")
def measurements_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests that measure look at no times, so they need not wait for each other or for who really measures here."""
    from tridsl.autotune import lock  # only here: a test run that selects no such test need not load it

    lock.LOCK = tmp_path_factory.mktemp("lock") / "bench.lock"


@pytest.fixture(autouse=True, scope="session")
def bytecode_of_programs() -> None:
    """Programs that tests start need not translate every module again (0.25 s of processor time each) where nothing may be written beside the sources."""
    if sys.dont_write_bytecode:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = BYTECODE


@pytest.fixture(scope="session")
def sid() -> SidRoot:
    """Debian sid's tools."""
    if SID is None:
        pytest.skip("no Debian sid root: .ci/sid-root makes one")
    return SID


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long tests first: one that is begun last is waited for by the other workers."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)


def pytest_collection_finish() -> None:
    """Modules and the tests themselves stay: whoever collects garbage, and some tests do so again and again, need not look at them."""
    gc.collect()
    gc.freeze()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="write golden files anew instead of comparing with them")


@pytest.fixture
def update_golden(request: pytest.FixtureRequest) -> bool:
    """Whether golden files are to be rewritten from what the code says now."""
    return bool(request.config.getoption("--update-golden"))
