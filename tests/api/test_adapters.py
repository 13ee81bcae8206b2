from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient

from api.estimator import Estimator
from shared.catalog import Catalog
from shared.db.costs import CostRepository
from shared.db.presence import WorkerRepository
from shared.estimate import CostCell, Stage, Workload
from shared.queue import queues_of
from tests.api.test_refusals import CANARY, check_problem
from tests.fixtures.api import Api
from tests.fixtures.loras import write_catalog


@pytest.fixture
def catalog_of_two(tmp_path: Path) -> Catalog:
    """Two models, two adapters for the first and one for the second."""
    files = {name: tmp_path / f"{name}.safetensors" for name in ("pastel", "ink", "elsewhere")}
    for file in files.values():
        file.touch()
    options = "weight = 0.5\nmin_weight = -1\nmax_weight = 1\ndescription = 'soft'"
    catalog = write_catalog(tmp_path, files, pastel=options)
    demo, elsewhere = catalog.models["demo"], catalog.adapters["elsewhere"]
    return replace(
        catalog,
        models={"demo": demo, "other": replace(demo, id="other"), "bare": replace(demo, id="bare")},
        adapters={**catalog.adapters, "elsewhere": replace(elsewhere, models=("other",))},
    )


@pytest.fixture
def client(api: Api, catalog_of_two: Catalog) -> Iterator[TestClient]:
    tokens = api.services.resolver.tokens
    resolver = replace(api.services.resolver, catalog=catalog_of_two, tokens=AnyModel(tokens))
    estimator = Estimator(CostRepository(api.database), catalog_of_two)
    with api.new_client(resolver=resolver, estimator=estimator) as client:
        yield client


class AnyModel:
    """Counts for every model as the demo model does."""

    def __init__(self, tokens: Any) -> None:
        self._tokens = tokens

    def count(self, _model: str, text: str) -> int:
        counted: int = self._tokens.count("demo", text)
        return counted


def submit(client: TestClient, adapters: object, **fields: object) -> Any:
    return client.post("/v1/jobs", json={"prompt": CANARY, "adapters": adapters, **fields})


def test_a_job_gets_the_adapters_that_it_names_in_the_order_of_their_ids(
    client: TestClient,
) -> None:
    answer = submit(client, [{"id": "pastel"}, {"id": "ink", "weight": 2}])
    assert answer.status_code == 202, answer.text
    wanted = [{"id": "ink", "weight": 2.0}, {"id": "pastel", "weight": 0.5}]
    assert answer.json()["request"]["adapters"] == wanted
    # Sent again as it is, it makes an equal job.
    again = client.post("/v1/jobs", json=answer.json()["request"])
    assert again.json()["request"] == answer.json()["request"]
    assert client.get(f"/v1/jobs/{answer.json()['id']}").json()["request"]["adapters"] == wanted


@pytest.mark.parametrize("nothing", [None, []])
def test_none_is_none(client: TestClient, nothing: object) -> None:
    assert submit(client, nothing).json()["request"]["adapters"] is None


@pytest.mark.parametrize(
    ("adapters", "fields", "code", "pointer", "detail"),
    [
        ([{"id": CANARY}], {}, "unknown_adapter", "#/adapters/0/id", "demo takes pastel, ink"),
        (
            [{"id": "ink"}, {"id": ""}],
            {"model": "bare"},
            "unknown_adapter",
            "#/adapters/1/id",
            "no such adapter; there is none for bare",
        ),
        (
            [{"id": "ink"}, {"id": "elsewhere"}],
            {},
            "invalid_request",
            "#/adapters/1/id",
            "made for other; demo takes pastel, ink",
        ),
        (
            [{"id": "ink", "weight": -0.1}],
            {},
            "invalid_request",
            "#/adapters/0/weight",
            "ink takes weights from 0 to 2",
        ),
        (
            [{"id": "pastel", "weight": 1.01}],
            {},
            "invalid_request",
            "#/adapters/0/weight",
            "pastel takes weights from -1 to 1",
        ),
        ([{"id": "ink", "weight": "1"}], {}, "invalid_request", "#/adapters/0/weight", "number"),
        ([{"id": "ink", "weight": True}], {}, "invalid_request", "#/adapters/0/weight", "number"),
        ([{"weight": 1}], {}, "invalid_request", "#/adapters/0/id", "required"),
        ([{"id": "ink", "scale": 1}], {}, "invalid_request", "#/adapters/0/scale", "unknown"),
        ([{"id": "ink"}] * 2, {}, "invalid_request", "#/adapters", "each adapter may stand once"),
        (
            [{"id": str(n)} for n in range(5)],
            {},
            "invalid_request",
            "#/adapters",
            "at most 4 items",
        ),
        ("ink", {}, "invalid_request", "#/adapters", "valid list"),
        (["ink"], {}, "invalid_request", "#/adapters/0", "object"),
    ],
)
def test_what_cannot_be_is_refused_with_what_would_work(
    api: Api,
    client: TestClient,
    adapters: object,
    fields: dict[str, object],
    code: str,
    pointer: str,
    detail: str,
) -> None:
    answer = submit(client, adapters, **fields)
    problem = check_problem(answer, status=422, code=code)
    assert [error["pointer"] for error in problem["errors"]] == [pointer]
    assert detail in problem["errors"][0]["detail"]
    assert CANARY not in answer.text
    assert api.count_jobs() == 0


def test_a_weight_that_is_no_number_is_refused(client: TestClient) -> None:
    answer = client.post(
        "/v1/jobs",
        content=b'{"prompt": "a star", "adapters": [{"id": "ink", "weight": NaN}]}',
        headers={"Content-Type": "application/json"},
    )
    problem = check_problem(answer, status=422, code="invalid_request")
    assert problem["errors"][0]["pointer"] == "#/adapters/0/weight"


def test_all_that_is_wrong_is_said_at_once(client: TestClient) -> None:
    answer = submit(client, [{"id": "elsewhere"}, {"id": "ink", "weight": 9}])
    problem = check_problem(answer, status=422, code="invalid_request")
    pointers = [error["pointer"] for error in problem["errors"]]
    assert pointers == ["#/adapters/0/id", "#/adapters/1/weight"]


def test_models_say_which_adapters_they_take(client: TestClient) -> None:
    models = {model["id"]: model["adapters"] for model in client.get("/v1/models").json()["data"]}
    assert models["demo"][0] == {
        "id": "pastel", "description": "soft", "revision": "1",
        "weight": 0.5, "min_weight": -1.0, "max_weight": 1.0,
    }  # fmt: skip
    ids = {model: [adapter["id"] for adapter in found] for model, found in models.items()}
    assert ids == {"demo": ["pastel", "ink"], "other": ["elsewhere"], "bare": []}


def test_adapters_are_part_of_the_estimate(
    api: Api, client: TestClient, database: sa.Engine
) -> None:
    WorkerRepository(database).beat("one", device="cpu", queues=queues_of("demo"), slots=8)
    CostRepository(database).save(
        CostCell("demo", "cpu", Workload(Stage.FORWARD, (1, 4, 16, 16), 77, number), 1, ms, 5)
        for number, ms in ((0, 10.0), (2, 30.0))
    )
    client.app.state.services.estimator.refresh()  # type: ignore[attr-defined]

    def predict(adapters: list[dict[str, str]]) -> float:
        body = {"prompt": "a star", "steps": 10, "guidance": 1, "adapters": adapters}
        estimate = client.post("/v1/estimates", json=body).json()
        assert [one["id"] for one in estimate["request"]["adapters"] or []] == sorted(
            adapter["id"] for adapter in adapters
        )
        seconds: float = estimate["cost"]["predicted_s"]
        return seconds

    assert predict([]) == pytest.approx(0.1)
    assert predict([{"id": "pastel"}, {"id": "ink"}]) == pytest.approx(0.3)


def test_sweeps_and_batches_take_adapters_too(client: TestClient) -> None:
    job = {"prompt": "a star", "adapters": [{"id": "ink"}]}
    swept = client.post("/v1/sweeps", json={"job": job, "steps": [4, 5]}).json()
    assert [one["request"]["adapters"] for one in swept["data"]] == [
        [{"id": "ink", "weight": 1}]
    ] * 2
    wrong = {"prompt": "a star", "adapters": [{"id": "elsewhere"}]}
    answer = client.post("/v1/batches", json={"jobs": [job, wrong]})
    problem = check_problem(answer, status=422, code="invalid_request")
    assert problem["errors"][0]["pointer"] == "#/jobs/1/adapters/0/id"


def test_a_retry_of_a_job_whose_adapter_is_gone_says_so(api: Api, client: TestClient) -> None:
    job_id = submit(client, [{"id": "ink"}]).json()["id"]
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    assert client.post(f"/v1/jobs/{job_id}/retry").status_code == 202
    with api.new_client() as later:
        answer = later.post(f"/v1/jobs/{job_id}/retry")
    problem = check_problem(answer, status=422, code="unknown_adapter")
    assert problem["errors"][0]["pointer"] == "#/adapters/0/id"
