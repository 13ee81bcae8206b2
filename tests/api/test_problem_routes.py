import pytest
from fastapi.testclient import TestClient

from api.problem_guide import GUIDES
from api.problems import PROBLEM_TYPES
from tests.api.test_refusals import check_problem
from tests.fixtures.api import Api


def test_the_type_of_a_problem_leads_to_its_explanation_without_a_key(api: Api) -> None:
    stranger = TestClient(api.client.app)
    problem = stranger.get("/v1/jobs").json()
    answer = stranger.get(problem["type"])
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "text/markdown; charset=utf-8"
    assert GUIDES["unauthorized"].meaning in answer.text
    assert GUIDES["unauthorized"].remedy in answer.text


@pytest.mark.parametrize("code", PROBLEM_TYPES)
def test_every_type_resolves(api: Api, code: str) -> None:
    answer = api.client.get(f"/problems/{code.replace('_', '-')}")
    assert answer.status_code == 200
    assert answer.text.startswith(f"## {code}\n\n{PROBLEM_TYPES[code].status}: ")


def test_what_is_no_type_is_not_found(api: Api) -> None:
    for wrong in ("none", "not_found", "%00"):
        answer = api.client.get(f"/problems/{wrong}")
        problem = check_problem(answer, status=404, code="not_found")
        assert "not-found" in problem["detail"]
