import threading

import pytest
from sqlalchemy.exc import OperationalError, ProgrammingError

from api.upkeep import Upkeep


@pytest.mark.parametrize("error", [OperationalError, ProgrammingError])
def test_what_one_task_meets_keeps_no_other_from_its_turn(error: type[Exception]) -> None:
    def fail() -> None:
        raise error("", None, Exception())  # type: ignore[call-arg]

    reached = threading.Event()
    upkeep = Upkeep([fail, reached.set])
    upkeep.start()
    assert reached.wait(20)
    reached.clear()
    upkeep.stop()
    # There was a last round: the thread had lived on.
    assert reached.is_set()
