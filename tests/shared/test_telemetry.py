import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from shared.telemetry import configure_logging


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.reset_defaults()


def test_a_line_is_one_json_object_with_the_process(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("worker-1")
    structlog.get_logger("here").info("job_started", job_id="job_1")
    logging.getLogger("elsewhere").warning("plain %s", "words")
    first, second = (json.loads(line) for line in capsys.readouterr().err.splitlines())
    assert first["event"] == "job_started"
    assert first["job_id"] == "job_1"
    assert first["process"] == second["process"] == "worker-1"
    assert second["event"] == "plain words"


def test_personal_data_is_not_written(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("api")
    structlog.get_logger("here").info("x", prompt="canary", negative_prompt="canary")
    assert "canary" not in capsys.readouterr().err


def test_an_exception_stays_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging("api")
    try:
        raise ValueError("broken")
    except ValueError:
        structlog.get_logger("here").exception("failed")
    (line,) = capsys.readouterr().err.splitlines()
    assert "ValueError: broken" in json.loads(line)["exception"]
