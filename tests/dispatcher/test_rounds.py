import threading
from collections.abc import Iterator

import pytest
from sqlalchemy.exc import OperationalError

from dispatcher.rounds import Rounds


class Service:
    """Fails as it is told, round by round, and counts its rounds."""

    def __init__(self, *errors: Exception) -> None:
        self._errors: Iterator[Exception] = iter(errors)
        self.rounds = 0
        self.is_done = threading.Event()

    def run_once(self) -> None:
        self.rounds += 1
        if error := next(self._errors, None):
            raise error
        self.is_done.set()


@pytest.mark.parametrize(
    "error", [OperationalError("SELECT", {}, Exception()), ValueError("a defect")]
)
def test_a_round_that_fails_is_not_the_last(error: Exception) -> None:
    service = Service(error, error)
    rounds = Rounds("service", service.run_once, interval_s=0.001)
    rounds.start()
    assert service.is_done.wait(10)
    rounds.stop()
    told = service.rounds
    assert told >= 3
    assert not [thread for thread in threading.enumerate() if thread.name == "service"]
    assert service.rounds == told


def test_a_round_that_hangs_holds_up_the_end_for_a_moment_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("dispatcher.rounds.STOP_PATIENCE_S", 0.01)
    hangs, goes_on = threading.Event(), threading.Event()

    def hang() -> None:
        hangs.set()
        goes_on.wait(30)

    rounds = Rounds("service", hang, interval_s=60)
    rounds.start()
    assert hangs.wait(10)
    rounds.stop()
    goes_on.set()
