import itertools
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.grid import LIST_OF, SweepCreate, expand
from tests.fixtures.api import CHOSEN_SEED, Api

GOOD = {"prompt": "a red star"}
AXES = {
    "presets": st.sampled_from(["fast", "creative@1", "balanced"]),
    "samplers": st.sampled_from(["ddim", "euler", "dpmpp_2m"]),
    "schedules": st.sampled_from(["native", "karras"]),
    "steps": st.integers(2, 50),
    "guidance": st.sampled_from([1, 2.5, 7]),
    "seeds": st.integers(0, 99),
}
SWEEPS = st.fixed_dictionaries(
    {},
    optional={
        name: st.lists(values, min_size=1, max_size=3, unique=True) for name, values in AXES.items()
    },
).filter(lambda lists: math.prod(map(len, lists.values())) <= 24)
FIELD_OF = {name: field for field, name in LIST_OF.items()}


def post(api: Api, key: str | None = None, **body: Any) -> Any:
    headers = {} if key is None else {"Idempotency-Key": key}
    return api.client.post("/v1/sweeps", json={"job": GOOD} | body, headers=headers)


def product(lists: dict[str, list[Any]]) -> list[dict[str, Any]]:
    names = [name for name in AXES if name in lists]
    return [
        {FIELD_OF[name]: value for name, value in zip(names, values, strict=True)}
        for values in itertools.product(*(lists[name] for name in names))
    ]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(lists=SWEEPS)
def test_a_sweep_is_the_product_each_job_as_if_it_came_alone(
    api: Api, lists: dict[str, list[Any]]
) -> None:
    before = api.count_jobs()
    answer = post(api, **lists)
    assert answer.status_code == 202, answer.text
    sweep = answer.json()
    points = product(lists)
    assert [job["coordinates"] for job in sweep["data"]] == points
    assert sweep["skipped"] == []
    assert api.count_jobs() - before == len(points)
    last = sweep["data"][-1]
    alone = api.submit(**points[-1])
    assert (last["request"], last["preset"]) == (alone["request"], alone["preset"])
    found = api.client.get(answer.headers["Location"]).json()["data"]
    assert {job["id"] for job in found} == {job["id"] for job in sweep["data"]}
    assert {job["batch"] for job in found} == {sweep["batch"]}


def test_jobs_without_a_seed_get_one_for_all() -> None:
    seeds = itertools.count(5)
    sweep = SweepCreate.model_validate({"job": GOOD, "steps": [5, 10, 20]})
    points = expand(sweep, new_seed=lambda: next(seeds))
    assert [point.body.seed for point in points] == [5, 5, 5]
    sweep = SweepCreate.model_validate({"job": GOOD | {"seed": 7}, "steps": [5, 10]})
    assert [point.body.seed for point in expand(sweep, new_seed=lambda: 0)] == [7, 7]


def test_more_than_a_hundred_jobs_are_refused_with_their_number(api: Api) -> None:
    answer = post(api, steps=list(range(2, 13)), seeds=list(range(10)))
    assert answer.status_code == 422
    says = "11 x 10 makes 110 jobs; a sweep may have 100"
    assert answer.json()["errors"] == [{"pointer": "#", "detail": says}]
    assert post(api, steps=list(range(2, 12)), seeds=list(range(10))).status_code == 202
    assert api.count_jobs() == 100


#: ddpm takes no 1,000 steps on the karras schedule, and lcm needs a distilled model.
MIXED = {"samplers": ["ddim", "ddpm", "lcm"], "schedules": ["native", "karras"], "steps": [5, 1000]}


def test_combinations_that_cannot_work_are_refused_all_at_once(api: Api) -> None:
    answer = post(api, **MIXED)
    problem = answer.json()
    assert (answer.status_code, problem["code"]) == (422, "invalid_request")
    told = {(error["pointer"], error["detail"]) for error in problem["errors"]}
    skipped = post(api, **MIXED, skip_invalid=True).json()["skipped"]
    expected = set()
    for one in skipped:
        values = ", ".join(f"{name} {value}" for name, value in one["coordinates"].items())
        for error in one["errors"]:
            # In every combination that has the value, or in this one.
            once = (error["pointer"], error["detail"])
            expected.add(once if once in told else (once[0], f"with {values}: {once[1]}"))
    assert told == expected
    of_lcm = [pointer for pointer, _ in told if pointer == "#/samplers/2"]
    assert len(of_lcm) == 1
    (of_ddpm,) = [detail for pointer, detail in told if pointer == "#/steps/1"]
    assert of_ddpm.startswith("with sampler ddpm, schedule karras, steps 1000: ddpm on the karras")


def test_what_cannot_work_is_left_out_when_asked_and_told(api: Api) -> None:
    answer = post(api, **MIXED, skip_invalid=True, key="k")
    assert answer.status_code == 202
    sweep = answer.json()
    made = [job["coordinates"] for job in sweep["data"]]
    left_out = [one["coordinates"] for one in sweep["skipped"]]
    points = product(MIXED)
    assert [point for point in points if point not in left_out] == made
    assert [point for point in points if point not in made] == left_out
    assert api.count_jobs() == len(made) > 0
    for one in sweep["skipped"]:
        alone = api.client.post("/v1/jobs", json=GOOD | one["coordinates"])
        assert alone.status_code == 422
        details = [error["detail"] for error in alone.json()["errors"]]
        assert [error["detail"] for error in one["errors"]] == details
    again = post(api, **MIXED, skip_invalid=True, key="k")
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.json() == sweep
    assert (post(api, **MIXED, key="k").json()["code"]) == "invalid_request"
    other = post(api, steps=[5], key="k")
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_key_reused")
    assert api.count_jobs() == len(made)


def test_a_replay_knows_the_coordinates_of_the_jobs_that_are_left(api: Api) -> None:
    first = post(api, steps=[5, 6, 7], key="k").json()["data"]
    api.client.post(first[1]["links"]["cancel"])
    assert api.client.delete(first[1]["links"]["self"]).status_code == 204
    again = post(api, steps=[5, 6, 7], key="k").json()["data"]
    assert [job["coordinates"] for job in again] == [{"steps": 5}, {"steps": 7}]
    assert [job["request"]["seed"] for job in again] == [CHOSEN_SEED] * 2


def test_what_is_wrong_with_every_job_is_said_once(api: Api) -> None:
    for skip_invalid in (False, True):
        job = {"prompt": "canarybird", "width": 9, "model": "demo"}
        answer = post(api, job=job, steps=[5, 6], samplers=["ddim"], skip_invalid=skip_invalid)
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == ["#/job/width"]
        assert "canarybird" not in answer.text
    assert api.count_jobs() == 0


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({"steps": []}, "#/steps", "at least 1"),
        ({"steps": [5, 5]}, "#/steps", "each value may stand once"),
        ({"guidance": [1, 1.0]}, "#/guidance", "each value may stand once"),
        ({"steps": [0]}, "#/steps/0", "greater than"),
        ({"samplers": ["canarybird"]}, "#/samplers/0", "'euler'"),
        ({"sampler": ["ddim"]}, "#/sampler", "it is a field of a job"),
        ({"presets": ["fast", "canarybird"]}, "#/presets/1", "no such preset"),
        ({"presets": ["fast", "canarybird"], "steps": [5, 6]}, "#/presets/1", "no such preset"),
        ({"job": GOOD | {"steps": 5}, "steps": [6]}, "#/job/steps", "leave it out, or steps"),
        ({"job": {}}, "#/job/prompt", "required"),
        ({"job": GOOD | {"setps": 3}}, "#/job/setps", "did you mean steps?"),
    ],
)
def test_what_is_no_sweep_is_refused(
    api: Api, body: dict[str, Any], pointer: str, says: str
) -> None:
    answer = post(api, **body)
    assert answer.status_code == 422, answer.text
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert says in error["detail"]
    assert "canarybird" not in answer.text
    assert api.count_jobs() == 0


def test_a_sweep_of_nothing_is_one_job(api: Api) -> None:
    (job,) = post(api).json()["data"]
    assert job["coordinates"] == {}
