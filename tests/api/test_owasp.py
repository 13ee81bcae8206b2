"""The OWASP API Security Top 10 of 2023, point by point; `docs/explanation/security.md` goes along.

Points that other files prove in full are shown here by one test each, and the page names those.
"""

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from fastapi.testclient import TestClient
from structlog.testing import capture_logs

from api.auth import authenticate
from api.batches import MAX_JOBS
from shared.access import ALL_SCOPES, KeyLimits, KeyTerms
from shared.catalog import Catalog
from shared.db.keys import mint_key
from tests.api.test_keys import OPEN, closed_routes
from tests.fixtures.api import Api

ROOT = Path(__file__).parents[2]
ADMIN = KeyTerms(scopes=ALL_SCOPES)
HOOK = "https://hooks.example.com/"

#: For each route that names an object: whose path it is made from. A new route must be entered.
NAMES = {
    "GET /v1/jobs/{job_id}": "job",
    "DELETE /v1/jobs/{job_id}": "job",
    "POST /v1/jobs/{job_id}/cancel": "job",
    "POST /v1/jobs/{job_id}/retry": "job",
    "GET /v1/jobs/{job_id}/attempts": "job",
    "GET /v1/jobs/{job_id}/events": "job",
    "GET /v1/jobs/{job_id}/artifacts/{index}": "artifact",
    "POST /v1/uploads/{incoming_id}/complete": "incoming",
    "POST /v1/deliveries/{delivery_id}/redeliver": "delivery",
    "GET /v1/webhook-endpoints/{endpoint_id}": "endpoint",
    "PATCH /v1/webhook-endpoints/{endpoint_id}": "endpoint",
    "DELETE /v1/webhook-endpoints/{endpoint_id}": "endpoint",
    "GET /v1/webhook-endpoints/{endpoint_id}/secret": "endpoint",
    "POST /v1/webhook-endpoints/{endpoint_id}/rotate-secret": "endpoint",
    "POST /v1/webhook-endpoints/{endpoint_id}/test": "endpoint",
    "GET /v1/presets/{name}": "preset",
    "DELETE /v1/presets/{name}": "preset",
    "DELETE /v1/keys/{key_id}": "key",
    "POST /v1/keys/{key_id}/rotate": "key",
    "GET /replicate/v1/predictions/{prediction_id}": "job",
    "POST /replicate/v1/predictions/{prediction_id}/cancel": "job",
    "GET /replicate/v1/predictions/{prediction_id}/stream": "job",
    "GET /replicate/v1/files/{file_id}": "upload",
}
#: These name a thing of the caller's own, whatever others call theirs.
OWN = {"PUT /v1/presets/{name}"}
#: These name a model, which all tenants share.
SHARED = {
    "GET /openai/v1/models/{model}",
    "GET /replicate/v1/models/{owner}/{name}",
    "GET /replicate/v1/models/{owner}/{name}/versions/{version}",
    "POST /replicate/v1/models/{owner}/{name}/predictions",
}
TABLES = ("jobs", "uploads", "deliveries", "webhook_endpoints", "presets", "api_keys")


def make_objects(owner: TestClient) -> dict[str, tuple[str, ...]]:
    """Make one of everything; returns what stands for each in a path."""

    def post(path: str, **body: Any) -> dict[str, Any]:
        answer = owner.post(path, json=body)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    job = post("/v1/jobs", prompt="a red star")["id"]
    uploads = owner.app.state.services.uploads  # type: ignore[attr-defined]
    reserved = uploads.reserve("tenant", content_type="image/png", num_bytes=9, sha256="ab" * 32)
    endpoint = post("/v1/webhook-endpoints", url=HOOK)["id"]
    assert owner.put("/v1/presets/mine", json={"steps": 7}).status_code == 201
    return {
        "job": (job,),
        "artifact": (job, "0"),
        "upload": (uploads.confirm("tenant", reserved).id,),
        "incoming": (post("/v1/uploads", content_type="image/png", bytes=9)["id"],),
        "endpoint": (endpoint,),
        "delivery": (post(f"/v1/webhook-endpoints/{endpoint}/test")["id"],),
        "preset": ("mine",),
        "key": (post("/v1/keys", name="ci")["id"],),
    }


def operations(api: Api) -> set[str]:
    return {f"{method} {route.path}" for route in closed_routes(api) for method in route.methods}


def fill(path: str, names: tuple[str, ...]) -> str:
    rest = iter(names)
    return re.sub(r"{\w+}", lambda _: next(rest), path)


def contents(api: Api) -> str:
    """Return all that the tables hold but what every request may touch."""
    with api.database.connect() as connection:
        rows = {
            table: [
                {key: str(value) for key, value in row.items()}
                for row in connection.execute(
                    sa.text(f"SELECT * FROM {table} ORDER BY 1")
                ).mappings()
            ]
            for table in TABLES
        }
    return json.dumps(rows)


def test_api1_every_route_that_names_an_object_is_in_the_table(api: Api) -> None:
    named = {operation for operation in operations(api) if "{" in operation}
    assert named == NAMES.keys() | OWN | SHARED


def test_api1_what_is_another_tenants_does_not_exist(api: Api) -> None:
    objects = make_objects(api.new_client(terms=ADMIN))
    stranger = api.new_client(tenant="other", terms=ADMIN)
    before = contents(api)
    for operation, kind in NAMES.items():
        method, path = operation.split()
        body = {"json": {"description": "mine now"}} if method == "PATCH" else {}
        answer = stranger.request(method, fill(path, objects[kind]), **body)
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), operation
    assert contents(api) == before


def test_api1_lists_show_the_callers_own_alone(api: Api) -> None:
    objects = make_objects(api.new_client(terms=ADMIN))
    stranger = api.new_client(tenant="other", terms=ADMIN)
    lists = [o.split()[1] for o in operations(api) if o.startswith("GET ") and "{" not in o]
    assert len(lists) >= 5
    for path in lists:
        text = stranger.get(path).text
        assert [name for names in objects.values() for name in names if f'"{name}"' in text] == []


def test_api1_a_preset_of_the_same_name_is_another_one(api: Api) -> None:
    owner = api.new_client(terms=ADMIN)
    make_objects(owner)
    before = owner.get("/v1/presets/mine").json()
    stranger = api.new_client(tenant="other")
    assert stranger.put("/v1/presets/mine", json={"steps": 9}).status_code == 201
    assert owner.get("/v1/presets/mine").json() == before


def test_api2_keys_are_stored_as_hashes_and_logged_nowhere(api: Api) -> None:
    key = mint_key()
    with capture_logs() as logs:
        client = api.new_client(key=key, terms=ADMIN)
        assert client.get("/v1/keys").status_code == 200
        made = client.post("/v1/keys", json={"name": "ci"}).json()["api_key"]
        assert TestClient(client.app).get(f"/v1/jobs?api_key={key}").status_code == 401
    stored = contents(api)
    with api.database.connect() as connection:
        hashes = set(
            connection.scalars(sa.text("SELECT encode(secret_sha256, 'hex') FROM api_keys"))
        )
    for text in (key, made):
        secret = text.split("_")[2]
        assert secret not in stored + str(logs)
        assert hashlib.sha256(secret.encode()).hexdigest() in hashes


def test_api3_nobody_sets_what_is_not_theirs_to_set(api: Api) -> None:
    for field in ("status", "tenant", "id", "key_id", "worker", "lease_token", "attempt", "error"):
        answer = api.client.post("/v1/jobs", json={"prompt": "p", field: "x"})
        assert answer.status_code == 422
        assert [error["pointer"] for error in answer.json()["errors"]] == [f"#/{field}"]
    assert api.count_jobs() == 0


def test_api3_answers_hold_nothing_internal(api: Api) -> None:
    job = api.submit()
    shown = json.dumps([job, api.client.get("/v1/jobs").json()])
    for word in ("tenant", "lease", "key_id", "queue_name", "body_sha256", "dispatched"):
        assert word not in shown


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/v1/jobs", {"prompt": "p", "width": 1_000_000}, "invalid_request"),
        ("/v1/jobs", {"prompt": "p", "steps": 1_000_000}, "invalid_request"),
        ("/v1/jobs", {"prompt": "p", "num_outputs": 1_000_000}, "invalid_request"),
        ("/v1/jobs", {"prompt": "p" * 100_000}, "prompt_too_long"),
        ("/v1/jobs", {"prompt": "p" * 10_000_000}, "body_too_large"),
        ("/v1/batches", {"jobs": [{"prompt": "p"}] * (MAX_JOBS + 1)}, "invalid_request"),
        ("/v1/uploads", {"content_type": "image/png", "bytes": 10**12}, "invalid_request"),
    ],
)
def test_api4_everything_has_a_largest_size(api: Api, path: str, body: Any, code: str) -> None:
    answer = api.client.post(path, json=body)
    assert answer.status_code in (413, 422)
    assert answer.json()["code"] == code
    assert api.count_jobs() == 0


def test_api4_pages_have_a_largest_size(api: Api) -> None:
    assert api.client.get("/v1/jobs?limit=1000000").status_code == 422


def test_api5_every_closed_route_asks_who_calls(api: Api) -> None:
    # That each asks for a scope too is shown in test_keys.py.
    for route in closed_routes(api):
        assert authenticate in {d.call for d in route.dependant.dependencies}, route.path


def test_api6_a_key_spends_no_more_than_its_budget_however_it_asks(api: Api) -> None:
    client = api.new_client(terms=KeyTerms(limits=KeyLimits(max_queued=3)))
    body = {"prompt": "p"}
    assert client.post("/v1/batches", json={"jobs": [body] * 4}).status_code == 429
    sweep = {"job": body, "steps": [5, 6, 7, 8]}
    assert client.post("/v1/sweeps", json=sweep).status_code == 429
    assert api.count_jobs() == 0
    assert client.post("/v1/batches", json={"jobs": [body] * 3}).status_code == 202
    answer = client.post("/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["violated-policies"]) == (429, ["max_queued"])


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/",
        "https://127.0.0.1/",
        "https://169.254.169.254/latest/meta-data",
        "https://[::1]/",
        "https://[::ffff:10.0.0.1]/",
        "https://user:password@hooks.example.com/",
        "file:///etc/passwd",
    ],
)
def test_api7_no_receiver_is_inside(api: Api, url: str) -> None:
    assert api.client.post("/v1/webhook-endpoints", json={"url": url}).status_code == 422
    job = {"prompt": "p", "webhook": {"url": url}}
    assert api.client.post("/v1/jobs", json=job).status_code == 422
    assert api.count_jobs() == 0


def test_api8_every_answer_tells_browsers_to_do_nothing_with_it(api: Api) -> None:
    stranger = TestClient(api.client.app)
    answers = [
        api.client.get("/v1/jobs"),
        stranger.get("/v1/jobs"),
        stranger.get("/nothing"),
        stranger.get("/livez"),
        stranger.options("/v1/jobs", headers={"Origin": "https://elsewhere.example"}),
    ]
    for answer in answers:
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        policy = "default-src 'none'; frame-ancestors 'none'"
        assert answer.headers["Content-Security-Policy"] == policy
        assert answer.headers["Referrer-Policy"] == "no-referrer"
        assert not {name for name in answer.headers if name.startswith("access-control")}


def test_api8_a_failure_tells_nothing_of_the_inside(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("canary-in-a-traceback")

    monkeypatch.setattr(type(api.services.jobs), "get", fail)
    answer = api.client.get("/v1/jobs/job_0")
    assert answer.status_code == 500
    assert "canary" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


def test_api9_every_route_is_in_the_description(api: Api) -> None:
    paths = api.client.get("/openapi.json").json()["paths"]
    described = {
        f"{method.upper()} {path}" for path, operations in paths.items() for method in operations
    }
    assert operations(api) == {o for o in described if o.split()[1] not in OPEN}
    for path in ("/docs", "/redoc", "/metrics", "/debug", "/flower"):
        assert api.client.get(path).status_code == 404


def test_api10_models_are_pinned_and_never_unpickled(catalog: Catalog) -> None:
    for spec in catalog.models.values():
        files = [path.suffix for path in Path(spec.path).rglob("*") if path.is_file()]
        assert ".safetensors" in files
        assert not {".bin", ".ckpt", ".pt", ".pth", ".pkl"} & set(files)


def test_the_page_names_every_point_and_only_tests_that_exist() -> None:
    page = (ROOT / "docs" / "explanation" / "security.md").read_text()
    assert re.findall(r"^## API(\d+)", page, re.MULTILINE) == [str(n) for n in range(1, 11)]
    for name, test in re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", page):
        source = (ROOT / name).read_text()
        assert test == "" or f"def {test}(" in source, f"{name}::{test}"
