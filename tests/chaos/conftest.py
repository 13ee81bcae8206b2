"""A LatentQ whose every process and every connection can fail, shared by the scenarios."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.system import System, running_system


@pytest.fixture(scope="session")
def shared_system(server_folder: Path) -> Iterator[System]:
    """The servers and processes of all scenarios: they come up once."""
    with running_system(server_folder / "chaos") as system:
        yield system


@pytest.fixture
def system(shared_system: System) -> Iterator[System]:
    """The system, whole before each scenario; what it accepted is judged afterwards."""
    shared_system.begin()
    yield shared_system
    shared_system.heal()
    shared_system.finish()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give scenarios time: the first one waits until all processes have loaded what they need.

    The campaign goes first of all: begun last, it would keep the other process of the tests idle.
    """
    items.sort(key=lambda item: item.path.name != "test_campaign.py")
    for item in items:
        if Path(__file__).parent in item.path.parents and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(300))
