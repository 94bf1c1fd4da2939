"""pytest fixtures; switch them on with `pytest_plugins = ["wise_creds.testing.fixtures"]` in your conftest.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from wise_creds.testing import FakeClock, MockWise


@pytest.fixture
def mock_wise() -> Iterator[MockWise]:
    """Give a running MockWise of this test's own."""
    with MockWise() as wise:
        yield wise


@pytest.fixture
def fake_clock() -> FakeClock:
    """Give a clock that stands still."""
    return FakeClock()
