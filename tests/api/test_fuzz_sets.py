"""Whatever is sent to the routes around many jobs: no 5xx, and rows exactly as the answer says."""

import json
from typing import Any
from urllib.parse import quote

from hypothesis import given
from hypothesis import strategies as st

from api.grid import SweepCreate
from api.preset_routes import PresetCreate
from tests.api.test_fuzz import NEARLY_VALID, VALUES, over_http
from tests.fixtures.api import Api

JSON_TYPE = {"Content-Type": "application/json"}
BATCHES = st.fixed_dictionaries({"jobs": st.lists(NEARLY_VALID, max_size=3)})
SWEEPS = st.builds(
    lambda job, fields: {"job": job} | fields,
    NEARLY_VALID | st.just({"prompt": "a red star"}),
    st.dictionaries(
        st.sampled_from(list(SweepCreate.model_fields)), st.lists(VALUES, max_size=3), max_size=3
    ),
)
PRESETS = st.dictionaries(st.sampled_from(list(PresetCreate.model_fields)), VALUES, max_size=4)


def send(api: Api, method: str, path: str, body: Any) -> Any:
    content = json.dumps(body).encode()
    answer = api.client.request(method, path, content=content, headers=JSON_TYPE)
    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert answer.headers["Content-Type"] == "application/problem+json"
    return answer


@over_http
@given(body=VALUES | BATCHES)
def test_any_batch_is_accepted_with_all_rows_or_refused_without(api: Api, body: Any) -> None:
    before = api.count_jobs()
    answer = send(api, "POST", "/v1/batches", body)
    assert answer.status_code in {202, 400, 413, 422}
    num_jobs = len(body["jobs"]) if answer.status_code == 202 else 0
    assert api.count_jobs() - before == num_jobs


@over_http
@given(body=VALUES | SWEEPS)
def test_any_sweep_is_accepted_with_all_rows_or_refused_without(api: Api, body: Any) -> None:
    before = api.count_jobs()
    answer = send(api, "POST", "/v1/sweeps", body)
    assert answer.status_code in {202, 400, 413, 422}
    num_jobs = len(answer.json()["data"]) if answer.status_code == 202 else 0
    assert api.count_jobs() - before == num_jobs


@over_http
@given(body=VALUES | NEARLY_VALID)
def test_any_estimate_is_answered_or_refused_without_a_row(api: Api, body: Any) -> None:
    before = api.count_jobs()
    assert send(api, "POST", "/v1/estimates", body).status_code in {200, 400, 413, 422}
    assert api.count_jobs() == before


@over_http
@given(
    name=st.just("mine") | st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    body=VALUES | PRESETS,
)
def test_any_preset_is_stored_as_it_was_sent_or_refused(api: Api, name: str, body: Any) -> None:
    path = f"/v1/presets/{quote(name, safe='')}"
    answer = send(api, "PUT", path, body)
    assert answer.status_code in {200, 201, 400, 404, 405, 413, 422}
    if answer.status_code < 300:
        stored = api.client.get(path).json()["versions"][0]
        assert stored == answer.json()
        said = {name: value for name, value in stored["request"].items() if value is not None}
        sent = {name: value for name, value in body.items() if value is not None}
        assert said == {name: sent[name] for name in sent if name != "description"}
