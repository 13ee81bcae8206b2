from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.db.costs import CostRepository
from shared.db.presence import WorkerRepository
from shared.estimate import CostCell, Stage, Workload
from tests.fixtures.api import Api


def let_a_worker_live(database: sa.Engine) -> None:
    WorkerRepository(database).beat("w", device="cpu", queues=["demo.interactive"], slots=1)
    workload = Workload(Stage.FORWARD, (1, 4, 16, 16), 77)
    CostRepository(database).save([CostCell("demo", "cpu", workload, 1, 10.0, 5)])


def estimate(api: Api, **body: Any) -> dict[str, Any]:
    answer = api.client.post("/v1/estimates", json={"prompt": "a red star"} | body)
    assert answer.status_code == 200, answer.text
    assert answer.headers["Cache-Control"] == "private, no-cache"
    told: dict[str, Any] = answer.json()
    return told


BODIES = st.fixed_dictionaries(
    {},
    optional={
        "preset": st.sampled_from(["fast", "creative@1"]),
        "sampler": st.sampled_from(["ddim", "heun", "pndm"]),
        "steps": st.integers(5, 60),
        "guidance": st.sampled_from([1, 7.5]),
        "num_outputs": st.integers(1, 3),
        "width": st.sampled_from([32, 64]),
        "priority": st.integers(0, 9),
        "seed": st.integers(0, 99),
        "metadata": st.just({"a": "b"}),
        "determinism": st.just("exact"),
    },
)


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(body=BODIES)
def test_an_estimate_is_what_the_job_then_says_of_itself(api: Api, body: dict[str, Any]) -> None:
    let_a_worker_live(api.database)
    api.services.estimator.refresh()
    before = api.count_jobs()
    told = estimate(api, **body)
    assert api.count_jobs() == before
    job = api.submit(**body)
    for member in ("request", "preset", "cost"):
        assert told[member] == job[member]
    assert told["iterations"] == job["progress"]["iterations"]
    bounds = {name: told["queue"].pop(name) for name in ("eta_low_s", "eta_high_s")}
    # Tenths of a second, of sums that are not added up in the same order.
    eta_s, slack_s = told["queue"].pop("eta_s"), 0.11
    assert bounds["eta_low_s"] - slack_s <= eta_s <= bounds["eta_high_s"] + slack_s
    assert eta_s == pytest.approx(job["queue"].pop("eta_s"), abs=slack_s)
    assert told["queue"] == job["queue"]


def test_the_request_of_an_estimate_makes_that_job(api: Api) -> None:
    told = estimate(api, webhook={"url": "https://example.test/hook"}, metadata={"a": "b"})
    assert api.submit(**told["request"])["request"] == told["request"]
    assert not api.client.get("/v1/deliveries").json()["data"]


def test_what_cannot_be_served_is_refused_as_a_submission_is(api: Api) -> None:
    wrong: list[dict[str, Any]] = [
        {"prompt": ""},
        {"prompt": "p", "setps": 3},
        {"prompt": "p", "model": "nothing"},
        {"prompt": "p", "preset": "fast@9"},
        {"prompt": "p", "width": 7},
        {"prompt": "p", "sampler": "lcm"},
        {"prompt": "p", "init_image": "upl_0"},
        {"prompt": "p", "webhook": {"url": "http://127.0.0.1/"}},
    ]
    for body in wrong:
        told, job = (api.client.post(path, json=body) for path in ("/v1/estimates", "/v1/jobs"))
        members = ("status", "code", "detail", "errors")
        assert [told.json()[name] for name in members] == [job.json()[name] for name in members]
    assert api.count_jobs() == len(api.nudges) == 0


def test_an_estimate_says_that_nobody_serves_it(api: Api) -> None:
    assert estimate(api)["queue"] == {
        "position": 0,
        "eta_s": None,
        "unschedulable": "no live worker serves demo; it waits for one until its deadline",
        "eta_low_s": None,
        "eta_high_s": None,
    }
