"""Jobs of a class-conditional model, beside the demo model."""

from dataclasses import replace
from typing import Any

import pytest
from fastapi.testclient import TestClient

from api.estimator import Estimator
from shared.catalog import Catalog
from shared.db.costs import CostRepository
from tests.fixtures.api import Api

LABELS = {"tench": 0, "Tinca tinca": 0, "cock": 7, "ballplayer": 981}


@pytest.fixture
def client(api: Api) -> TestClient:
    resolver = api.services.resolver
    demo = resolver.catalog.models["demo"]
    special = replace(
        demo,
        id="labels",
        family="dit",
        labels=LABELS,
        has_one_size=True,
        max_width=demo.width,
        max_height=demo.height,
        starts_from_pictures=False,
        takes_adapters=False,
        max_tokens=0,
    )
    catalog = Catalog(default="demo", models={"demo": demo, "labels": special})
    return api.new_client(
        resolver=replace(resolver, catalog=catalog),
        estimator=Estimator(CostRepository(api.database), catalog),
    )


@pytest.mark.parametrize(
    ("label", "number"), [("cock", 7), (7, 7), ("7", 7), ("Tinca tinca", 0), (0, 0)]
)
def test_a_label_is_called_by_its_name_or_its_number(
    client: TestClient, label: str | int, number: int
) -> None:
    answer = client.post("/v1/jobs", json={"model": "labels", "class_label": label})
    assert answer.status_code == 202, answer.text
    request = answer.json()["request"]
    assert (request["class_label"], request["prompt"]) == (number, None)
    # What is shown makes an equal job.
    again = client.post("/v1/jobs", json=request)
    assert again.json()["request"] == request


@pytest.mark.parametrize(
    ("body", "pointer", "says"),
    [
        ({}, "#/class_label", "tench (0)"),
        ({"class_label": "cook"}, "#/class_label", "did you mean cock"),
        ({"class_label": 8}, "#/class_label", "no such label"),
        ({"class_label": True}, "#/class_label", "should be a valid"),
        ({"class_label": 7.5}, "#/class_label", "should be a valid"),
        ({"class_label": -1}, "#/class_label", "greater than or equal to 0"),
        ({"class_label": 7, "prompt": "a cock"}, "#/prompt", "reads no text"),
        ({"class_label": 7, "negative_prompt": "a hen"}, "#/negative_prompt", "reads no text"),
        ({"class_label": 7, "width": 32}, "#/width", "makes 64 pixels, and no others"),
    ],
    ids=str,
)
def test_what_it_does_not_take_is_refused_with_what_it_does(
    client: TestClient, body: dict[str, Any], pointer: str, says: str
) -> None:
    answer = client.post("/v1/jobs", json={"model": "labels", **body})
    assert answer.status_code == 422
    errors = answer.json()["errors"]
    assert any(e["pointer"].startswith(pointer) and says in e["detail"] for e in errors), errors


def test_a_model_that_reads_text_needs_a_prompt_and_knows_no_labels(client: TestClient) -> None:
    for body, pointer in (({}, "#/prompt"), ({"prompt": "a", "class_label": 7}, "#/class_label")):
        answer = client.post("/v1/jobs", json=body)
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == pointer


def test_the_models_are_listed_with_their_labels(client: TestClient) -> None:
    demo, special = client.get("/v1/models").json()["data"]
    assert (demo["labels"], special["labels"]) == (None, LABELS)
    assert (special["takes_adapters"], special["starts_from_pictures"]) == (False, False)


def test_a_preset_of_a_tenant_can_be_for_a_model_with_labels(client: TestClient) -> None:
    answer = client.put("/v1/presets/mine", json={"model": "labels", "steps": 9})
    assert answer.status_code in {200, 201}, answer.text
    job = client.post("/v1/jobs", json={"preset": "mine", "class_label": "cock"}).json()
    assert (job["request"]["model"], job["request"]["steps"]) == ("labels", 9)


def test_nothing_is_stored_of_a_label_where_there_is_none(client: TestClient, api: Api) -> None:
    """Workers of earlier releases know no such field."""
    client.post("/v1/jobs", json={"prompt": "a red star"})
    with api.database.connect() as connection:
        (stored,) = connection.exec_driver_sql("SELECT request FROM jobs").scalars()
    assert "class_label" not in stored


@pytest.mark.parametrize(
    ("fields", "pointer"),
    [
        ({"model": "demo-classes", "prompt": "a cat"}, "#/prompt"),
        ({"model": "demo-classes", "class_label": "unicorn"}, "#/class_label"),
        ({"model": "demo-classes", "class_label": "cat", "width": 128}, "#/width"),
        ({"model": "demo", "prompt": "a cat", "sampler": "lcm"}, "#/sampler"),
    ],
)
def test_what_a_shipped_model_does_not_take_is_refused(
    api: Api, fields: dict[str, Any], pointer: str
) -> None:
    refused = api.client.post("/v1/jobs", json=fields)
    assert refused.status_code == 422
    assert pointer in [error["pointer"] for error in refused.json()["errors"]]
