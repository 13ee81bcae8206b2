import logging

import pytest

from api import problems
from shared import errors
from shared.db.jobs import JobRepository
from shared.db.session import make_engine
from tests.fixtures.api import Api


def test_an_unexpected_error_says_nothing_of_its_message(
    api: Api, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    def fail() -> str:
        raise ValueError("canary" + "bird")  # in two parts: the log may show this line

    answer = api.new_client(new_job_id=fail).post("/v1/jobs", json={"prompt": "p"})
    assert answer.status_code == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "internal"
    assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
    log = "".join([*capfd.readouterr(), caplog.text])
    assert "request_failed" in log
    assert "ValueError" in log
    assert answer.headers["X-Request-Id"] in log
    assert "canarybird" not in log + answer.text


def test_without_postgresql_a_caller_shall_come_back(api: Api) -> None:
    nowhere = JobRepository(make_engine("postgresql://nobody@127.0.0.1:1/nothing"))
    answer = api.new_client(jobs=nowhere).post("/v1/jobs", json={"prompt": "p"})
    assert answer.status_code == 503
    assert answer.json()["code"] == "service_unavailable"
    assert 1 <= int(answer.headers["Retry-After"]) <= 120
    assert answer.json()["error"]["type"] == "server_error"
    assert "127.0.0.1" not in answer.text
    assert not api.nudges


def test_every_error_that_a_route_may_raise_has_a_place_in_the_registry() -> None:
    raised = {
        errors.InvalidRequest,
        errors.Unauthorized,
        errors.NotFound,
        errors.ServiceUnavailable,
    }
    assert {error.code for error in raised} <= problems.PROBLEM_TYPES.keys()
