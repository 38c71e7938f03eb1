"""A lab for each test, and one for tests that only look."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from .harness import Lab, Pair, start_pair


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """Engines that end with the test."""
    made = Lab(tmp_path)
    yield made
    made.close()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """A small prefiller of two nodes and a decoder that several tests ask."""
    made = Lab(tmp_path_factory.mktemp("pair"))
    try:
        yield start_pair(made)
    finally:
        made.close()
