"""What the pages for operators say, done."""

import json
from typing import Any

import pytest

from bench.growth import DEVICE
from models import CATALOG
from shared.catalog import Catalog
from shared.estimate import CostCell, DeviceCosts, Stage, Workload
from shared.request import GenerationRequest
from tests.docs.reader import OPERATIONS, Reader, blocks_of
from tests.fixtures.stack import JsonObject, Stack, wait_until


@pytest.mark.slow
def test_workers_are_counted_as_the_page_says(reader: Reader, stack: Stack) -> None:
    (reader.folder / ".latentq").symlink_to(stack.data_dir)
    for block in blocks_of(OPERATIONS / "sizing.md"):
        reader.run(block)


def test_the_formula_for_sizes_is_that_of_estimates() -> None:
    _, by_hand = blocks_of(OPERATIONS / "sizing.md")
    said: dict[str, Any] = {}
    exec(by_hand.text, said)
    cells = [
        CostCell("demo", "cpu", Workload(Stage.FORWARD, (1, 4, 16, 16), 77), rows, ms, 5)
        for rows, ms in said["forward_ms"].items()
    ]
    decode = Workload(Stage.DECODE, (1, 4, 16, 16), 0)
    costs = DeviceCosts([*cells, CostCell("demo", "cpu", decode, 1, said["decode_ms"], 5)])
    request = GenerationRequest.model_validate(
        {"prompt": "a star", "model": "demo", "sampler": "dpmpp_2m", "schedule": "native",
         "steps": said["steps"], "guidance": 7.5, "seed": 1, "width": 64, "height": 64}
    )  # fmt: skip
    spec = Catalog.load(CATALOG).models["demo"]
    assert said["job_s"] == pytest.approx(costs.predict_s(request, spec))
    assert {rows: round(1000 * s) for rows, s in DEVICE.seconds.items() if rows != 12} == (
        said["forward_ms"]
    )


@pytest.mark.slow
def test_the_service_is_closed_and_opened_as_the_page_says(reader: Reader, stack: Stack) -> None:
    close, reopen = blocks_of(OPERATIONS / "maintenance.md")
    reader.stand_beside(stack)
    job = stack.submit(prompt="a large red star", steps=200)
    reader.run(close)
    answer = wait_until(lambda: refusal_of(stack), timeout_s=10)
    assert answer["code"] == "read_only"
    assert "back at 14:00 UTC" in answer["detail"]
    assert stack.http.get("/readyz").json()["read_only"] is True
    assert [job["status"] for job in stack.wait([job["id"]])] == ["succeeded"]
    reader.run(reopen)
    wait_until(lambda: refusal_of(stack) is None, timeout_s=10)


def refusal_of(stack: Stack) -> JsonObject | None:
    answer = stack.http.post("/v1/jobs", json={"prompt": "a large red star", "steps": 1})
    problem: JsonObject = answer.json()
    return None if answer.status_code == 202 else problem


@pytest.mark.slow
def test_a_backup_is_made_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.stand_beside(stack)
    stack.wait([stack.submit(prompt="a large red star", steps=2)["id"]])
    for block in blocks_of(OPERATIONS / "backup.md"):
        reader.run(block)
    for name in ("saved", "saved-exactly"):
        summary = json.loads((reader.folder / name / "backup.json").read_text())
        assert summary["objects"] > 0
    wait_until(lambda: refusal_of(stack) is None, timeout_s=10)


@pytest.mark.slow
def test_keys_are_replaced_as_the_page_says(reader: Reader, stack: Stack) -> None:
    reader.stand_beside(stack)
    for block in blocks_of(OPERATIONS / "keys.md"):
        # The other one is run by tests/deploy/test_credentials.py.
        if block.language == "sh":
            reader.run(block)
