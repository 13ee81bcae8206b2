from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.own_presets import PresetFields
from api.tokens import TokenCounter
from shared.catalog import Catalog
from tests.fixtures.api import Api


def put(api: Api, name: str = "mine", **fields: Any) -> Any:
    return api.client.put(f"/v1/presets/{name}", json=fields)


def test_a_preset_has_versions_that_jobs_may_name(api: Api) -> None:
    first = put(api, steps=7, sampler="euler", description="a draft")
    assert first.status_code == 201
    assert first.headers["Cache-Control"] == "private, no-cache"
    shown = first.json()
    assert (shown["name"], shown["version"], shown["builtin"]) == ("mine", 1, False)
    assert shown["description"] == "a draft"
    said = {name: value for name, value in shown["request"].items() if value is not None}
    assert said == {"steps": 7, "sampler": "euler"}
    assert put(api, steps=7, sampler="euler", description="a draft").status_code == 200
    assert put(api, steps=9, guidance=3).json()["version"] == 2
    for wanted, version, sampler, steps in (
        ("mine", 2, "dpmpp_2m", 9),
        ("mine@1", 1, "euler", 7),
        ("mine@2", 2, "dpmpp_2m", 9),
    ):
        job = api.submit(preset=wanted)
        assert job["preset"] == {"name": "mine", "version": version}
        assert job["request"]["preset"] == f"mine@{version}"
        assert (job["request"]["sampler"], job["request"]["steps"]) == (sampler, steps)
    assert len(api.client.get("/v1/jobs?preset=mine").json()["data"]) == 3


FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "model": st.just("demo"),
        "sampler": st.sampled_from(["ddim", "euler"]),
        "schedule": st.sampled_from(["native", "karras"]),
        "steps": st.integers(2, 50),
        "guidance": st.sampled_from([1.0, 2.5, 7.0]),
        "guidance_rescale": st.sampled_from([0.0, 0.5]),
        "width": st.sampled_from([32, 64]),
        "height": st.sampled_from([32, 128]),
        "num_outputs": st.integers(1, 3),
        "output_format": st.sampled_from(["png", "webp"]),
        "allow_undistilled": st.booleans(),
    },
)
over_http = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@over_http
@given(mine=FIELDS.filter(bool), explicit=FIELDS, nulls=st.booleans())
def test_the_body_beats_the_preset_and_the_preset_the_default(
    api: Api, mine: dict[str, Any], explicit: dict[str, Any], nulls: bool
) -> None:
    assert put(api, **mine).status_code in {200, 201}
    nothing = dict.fromkeys(["model", "sampler", "steps", "guidance", "width"]) if nulls else {}
    job = api.submit(preset="mine", **(nothing | explicit))
    plain = api.submit(**(mine | explicit))
    assert job["request"] | {"preset": None} == plain["request"] | {"preset": None}


def test_a_preset_builds_on_what_the_model_says_of_the_default(api: Api, catalog: Catalog) -> None:
    put(api, steps=7)
    guidance = catalog.models["demo"].presets["balanced"].guidance
    assert api.submit(preset="mine")["request"]["guidance"] == guidance


def test_a_deleted_preset_is_refused_and_old_jobs_keep_what_it_said(api: Api) -> None:
    put(api, steps=7)
    job = api.submit(preset="mine")
    assert api.client.delete("/v1/presets/mine").status_code == 204
    for wanted in ("mine", "mine@1"):
        answer = api.client.post("/v1/jobs", json={"prompt": "p", "preset": wanted})
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_preset")
        assert "was deleted; name another one" in answer.json()["errors"][0]["detail"]
    assert api.client.get(job["links"]["self"]).json()["request"] == job["request"]
    api.client.post(job["links"]["cancel"])
    retried = api.client.post(f"{job['links']['self']}/retry").json()
    assert (retried["request"], retried["preset"]) == (job["request"], job["preset"])
    assert api.client.get("/v1/presets/mine").status_code == 404
    assert api.client.delete("/v1/presets/mine").status_code == 404
    assert put(api, steps=7).json()["version"] == 2
    assert api.submit(preset="mine")["preset"]["version"] == 2


def test_lists_show_the_newest_and_a_name_all_versions(api: Api) -> None:
    put(api, steps=7)
    put(api, steps=8, guidance=3)
    put(api, name="another", sampler="euler")
    shown = api.client.get("/v1/presets").json()["data"]
    assert [preset["name"] for preset in shown if preset["builtin"]] == [
        "balanced", "creative", "precise", "fast", "reference",
    ]  # fmt: skip
    own = [preset for preset in shown if not preset["builtin"]]
    assert [(preset["name"], preset["version"]) for preset in own] == [("another", 1), ("mine", 2)]
    # In the form of the built-in ones: complete for each kind of model.
    for values in (*own[1]["values"].values(), own[1]["distilled"]):
        assert (values["steps"], values["guidance"]) == (8, 3.0)
    assert own[1]["distilled"]["sampler"] == "lcm"
    mine = api.client.get("/v1/presets/mine").json()
    assert [version["version"] for version in mine["versions"]] == [2, 1]
    assert mine["versions"][0] == own[1]
    assert {name: mine[name] for name in own[1]} == own[1]
    fast = api.client.get("/v1/presets/fast").json()
    assert fast["versions"] == [preset for preset in shown if preset["name"] == "fast"]


@pytest.mark.parametrize("method", ["put", "delete"])
def test_a_builtin_preset_stays_as_it_is(api: Api, method: str) -> None:
    answer = api.client.request(method, "/v1/presets/fast", json={"steps": 5})
    assert (answer.status_code, answer.json()["code"]) == (409, "builtin_preset")
    assert "take another name, such as my-fast" in answer.json()["detail"]
    assert api.submit(preset="fast")["request"]["steps"] == 12


@pytest.mark.parametrize(
    ("fields", "code", "pointer", "says"),
    [
        ({}, "invalid_request", "#", "it may say model, sampler"),
        ({"steps": None}, "invalid_request", "#", "it may say model, sampler"),
        ({"description": "words"}, "invalid_request", "#", "settles nothing"),
        ({"steps": 0}, "invalid_request", "#/steps", "greater than"),
        ({"steps": "5"}, "invalid_request", "#/steps", "valid integer"),
        ({"guidance": 51}, "invalid_request", "#/guidance", "less than or equal to 50"),
        ({"sampler": "canarybird"}, "invalid_request", "#/sampler", "'euler'"),
        ({"width": 9}, "invalid_request", "#/width", "multiples of"),
        ({"model": "nothing"}, "unknown_model", "#/model", "known: demo"),
        ({"sampler": "lcm"}, "invalid_request", "#/sampler", "distilled"),
        (
            {"sampler": "ddpm", "schedule": "karras", "steps": 1000},
            "invalid_request",
            "#/steps",
            "takes at most",
        ),
        ({"prompt": "canarybird"}, "invalid_request", "#/prompt", "it is a field of a job"),
        ({"preset": "fast"}, "invalid_request", "#/preset", "it is a field of a job"),
        ({"description": "canary\0"}, "invalid_request", "#/description", "NUL"),
        ({"description": "c" * 501}, "invalid_request", "#/description", "at most 500"),
    ],
)
def test_what_no_job_could_use_is_no_preset(
    api: Api, fields: dict[str, Any], code: str, pointer: str, says: str
) -> None:
    answer = put(api, **fields)
    assert (answer.status_code, answer.json()["code"]) == (422, code)
    (error,) = answer.json()["errors"]
    assert error["pointer"] == pointer
    assert says in error["detail"]
    assert "canary" not in answer.text
    assert api.client.get("/v1/presets/mine").status_code == 404


def test_a_preset_may_be_for_a_model_that_is_not_the_default(api: Api, catalog: Catalog) -> None:
    distilled = replace(catalog.models["demo"], id="distilled", is_distilled=True)
    both = replace(catalog, models={**catalog.models, "distilled": distilled})
    resolver = replace(api.services.resolver, catalog=both, tokens=TokenCounter(both))
    client = api.new_client(resolver=resolver)
    assert client.put("/v1/presets/mine", json={"sampler": "lcm", "steps": 4}).status_code == 201
    named = {"sampler": "lcm", "steps": 4, "model": "demo"}
    assert client.put("/v1/presets/other", json=named).status_code == 422


@pytest.mark.parametrize("name", ["Mine", "a b", "-a", "a@1", "a%00", "%C3%A9", "a" * 65])
def test_a_name_that_no_preset_can_have(api: Api, name: str) -> None:
    answer = put(api, name=name, steps=5)
    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_request")
    for method in ("GET", "DELETE"):
        assert api.client.request(method, f"/v1/presets/{name}").status_code == 404


@pytest.mark.parametrize(
    "wanted", ["mine@0", "mine@2", "mine@01", "mine@", "mine@1@1", "mine@99999999999", "@1", "Mine"]
)
def test_what_names_no_version_is_refused(api: Api, wanted: str) -> None:
    put(api, steps=5)
    answer = api.client.post("/v1/jobs", json={"prompt": "p", "preset": wanted})
    assert (answer.status_code, answer.json()["code"]) == (422, "unknown_preset")
    assert "balanced@1" in answer.json()["errors"][0]["detail"]


def test_a_tenant_neither_sees_nor_uses_nor_changes_what_others_have(api: Api) -> None:
    put(api, steps=7)
    other = api.new_client(tenant="other")
    assert len(other.get("/v1/presets").json()["data"]) == 5
    assert other.get("/v1/presets/mine").status_code == 404
    assert other.delete("/v1/presets/mine").status_code == 404
    for path, body in (
        ("/v1/jobs", {"prompt": "p", "preset": "mine"}),
        ("/v1/estimates", {"prompt": "p", "preset": "mine@1"}),
        ("/v1/batches", {"jobs": [{"prompt": "p", "preset": "mine"}]}),
        ("/v1/sweeps", {"job": {"prompt": "p"}, "presets": ["fast", "mine"]}),
    ):
        answer = other.post(path, json=body)
        assert (answer.status_code, answer.json()["code"]) == (422, "unknown_preset")
    assert other.put("/v1/presets/mine", json={"steps": 9}).json()["version"] == 1
    assert api.submit(preset="mine")["request"]["steps"] == 7


def test_a_builtin_preset_costs_no_query_and_a_sweep_asks_once_for_each_other(api: Api) -> None:
    put(api, steps=7)
    asked: list[str] = []

    def note(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if "presets" in statement:
            asked.append(statement)

    sa.event.listen(api.database, "after_cursor_execute", note)
    try:
        for wanted in (None, "fast", "fast@1"):
            api.submit(preset=wanted)
        api.client.post("/v1/jobs", json={"prompt": "p", "preset": "fast@2"})
        assert asked == []
        body = {"job": {"prompt": "p"}, "presets": ["mine", "mine@1", "fast"], "seeds": [1, 2, 3]}
        assert len(api.client.post("/v1/sweeps", json=body).json()["data"]) == 9
        assert len(asked) == 2
    finally:
        sa.event.remove(api.database, "after_cursor_execute", note)


@over_http
@given(fields=FIELDS)
def test_what_a_preset_says_reads_back_as_it_was_stored(fields: dict[str, Any]) -> None:
    said = PresetFields.model_validate(fields)
    stored = said.model_dump(mode="json", exclude_none=True)
    assert stored == fields
    assert PresetFields.model_validate(stored) == said
