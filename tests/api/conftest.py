"""Kernels and records of these tests go to a cache of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import pytest

import tridsl
from tridsl.api import library
from tridsl.api.engine import Services
from tridsl.api.ops import Namespace
from tridsl.api.store import DiskStore
from tridsl.program.realise import Realiser
from tridsl.runtime.artifacts import Artifacts


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """`stdlib` and `tridsl.compile` keep their kernels in the user's cache: here in a folder of the session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("user-cache")))
        yield


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Services:
    artifacts = Artifacts(tmp_path_factory.mktemp("cache"))
    return Services(realiser=Realiser(store=DiskStore(artifacts)), native=artifacts)


@pytest.fixture(scope="session")
def compile_text(services: Services) -> Callable[[str], Namespace]:
    """`tridsl.compile` with the cache of these tests."""
    return lambda text: library.compile_text(text, tridsl.stdlib.source, services)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(7)
