"""Whatever is sent: no 5xx, and a row exactly when the answer is 202."""

import json
import os
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api.schemas import JobCreate
from tests.fixtures.api import Api

#: In all, of the eight tests here and in test_fuzz_sets.py; test_fuzz_long.py asks for more.
NUM_CASES = int(os.environ.get("FUZZ_CASES", "2000"))
#: Lone surrogates included: JSON can spell them.
TEXT = st.text(st.characters())
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(10**400), max_value=10**400),
    st.floats(),
    TEXT,
    st.sampled_from(["demo", "fast@1", "euler", "ddpm", "karras", "cosine", "exact", "webp"]),
    st.integers(min_value=0, max_value=130),
)
VALUES = st.recursive(
    SCALARS,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=8,
)
NEARLY_VALID = st.builds(
    lambda prompt, fields: {"prompt": prompt} | fields,
    TEXT,
    st.dictionaries(st.sampled_from(list(JobCreate.model_fields)), VALUES, max_size=4),
)

over_http = settings(
    max_examples=NUM_CASES // 8,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@over_http
@given(body=VALUES | NEARLY_VALID)
def test_any_json_is_accepted_with_a_row_or_refused_without(api: Api, body: Any) -> None:
    check(api, json.dumps(body).encode())


@over_http
@given(body=st.binary(max_size=200))
def test_any_bytes_are_accepted_with_a_row_or_refused_without(api: Api, body: bytes) -> None:
    check(api, body)


def check(api: Api, body: bytes) -> None:
    before = api.count_jobs()
    answer = api.client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code in {202, 400, 413, 422}, answer.text
    assert api.count_jobs() - before == (answer.status_code == 202)
    if answer.status_code != 202:
        assert answer.headers["Content-Type"] == "application/problem+json"


@over_http
@given(name=TEXT, value=TEXT)
def test_any_query_is_answered_or_refused(api: Api, name: str, value: str) -> None:
    params = {name.encode("utf-8", "replace"): value.encode("utf-8", "replace")}
    assert api.client.get("/v1/jobs", params=params).status_code in {200, 400, 422}


@over_http
@given(job_id=st.text(st.characters(exclude_categories=["Cs"])))
def test_any_id_is_answered(api: Api, job_id: str) -> None:
    path = f"/v1/jobs/{quote(job_id, safe='')}"
    assert api.client.get(path).status_code in {200, 404}
