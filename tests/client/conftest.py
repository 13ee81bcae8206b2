"""A service that answers as a test says, in front of either kind of client."""

from collections.abc import Callable, Iterator

import pytest

from tests.client.service import Answer, Service
from tests.fixtures.callers import KINDS


@pytest.fixture(params=KINDS)
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[..., Service]]:
    """Make services that answer from a list."""
    made: list[Service] = []

    def make(*answers: Answer) -> Service:
        made.append(Service(request.param, *answers))
        return made[-1]

    yield make
    for service in made:
        service.caller.close()
