"""What comes out of the whole system, over HTTP."""

import hashlib
import io
import json
import os
import signal
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from evals.stock import StockDiffusers
from shared.compatibility import DIFFUSION_SAMPLERS
from shared.request import GenerationRequest
from shared.vocab import Sampler
from tests.fixtures.pictures import encode
from tests.fixtures.stack import Stack, wait_until

PROMPT = "a large red star on a yellow background"


def fetch(artifact: dict[str, Any]) -> bytes:
    """Fetch a file as a client does: by its link alone, without a key."""
    return httpx.get(artifact["url"]).raise_for_status().content


@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("sampler", DIFFUSION_SAMPLERS)
def test_a_job_alone_equals_stock_diffusers_bit_for_bit(
    stack: Stack, stock: StockDiffusers, sampler: Sampler, guidance: float
) -> None:
    fields = {"sampler": sampler, "schedule": "native", "steps": 8, "guidance": guidance}
    fields |= {"negative_prompt": "blue", "seed": 1234, "allow_undistilled": True}
    job = stack.submit(prompt=PROMPT, **fields)
    (done,) = stack.wait([job["id"]])
    assert done["status"] == "succeeded", done["error"]
    ours = np.asarray(Image.open(io.BytesIO(fetch(done["artifacts"][0]))))
    shown = {name: done["request"][name] for name in GenerationRequest.model_fields}
    request = {name: value for name, value in shown.items() if value is not None}
    assert np.array_equal(ours, stock.draw(GenerationRequest.model_validate(request)).pixels)


def test_a_file_is_what_its_job_says_and_carries_its_recipe(stack: Stack) -> None:
    job = stack.submit(prompt=PROMPT, steps=4, num_outputs=2, seed=2**53 - 1)
    (done,) = stack.wait([job["id"]])
    assert [artifact["seed"] for artifact in done["artifacts"]] == [2**53 - 1, 0]
    for artifact in done["artifacts"]:
        data = fetch(artifact)
        assert hashlib.sha256(data).hexdigest() == artifact["sha256"]
        assert len(data) == artifact["bytes"]
        recipe = json.loads(Image.open(io.BytesIO(data)).info["latentq"])
        assert recipe["request"]["prompt"] == PROMPT
        assert recipe["request"]["steps"] == 4
        assert recipe["seed"] == artifact["seed"]
        assert job["id"] not in json.dumps(recipe)


def test_the_second_output_can_be_made_again_alone(stack: Stack) -> None:
    both = stack.submit(prompt=PROMPT, steps=4, num_outputs=2, seed=5, determinism="exact")
    alone = stack.submit(prompt=PROMPT, steps=4, seed=6, determinism="exact")
    pair, single = stack.wait([both["id"], alone["id"]])
    pictures = [
        np.asarray(Image.open(io.BytesIO(fetch(artifact))))
        for artifact in (pair["artifacts"][1], single["artifacts"][0])
    ]
    assert np.array_equal(*pictures)


def test_a_picture_is_redrawn_over_http_as_stock_diffusers_does(
    stack: Stack, stock: StockDiffusers
) -> None:
    image = Image.fromarray(np.tile(np.arange(0, 256, 4, np.uint8)[:, None, None], (1, 64, 3)))
    mask = Image.new("L", (64, 64))
    mask.paste(255, (32, 0, 64, 64))
    ids = [stack.upload(encode(picture)) for picture in (image, mask)]
    fields = {"sampler": "euler", "steps": 8, "guidance": 3.0, "strength": 0.6, "seed": 5}
    for region in (None, mask):
        pictures = dict(
            zip(("init_image", "mask")[: 1 if region is None else 2], ids, strict=False)
        )
        job = stack.submit(prompt=PROMPT, **fields, **pictures)
        (done,) = stack.wait([job["id"]])
        assert done["status"] == "succeeded", done["error"]
        assert done["progress"]["iteration"] == done["progress"]["iterations"] == 4
        ours = np.asarray(Image.open(io.BytesIO(fetch(done["artifacts"][0]))))
        request = GenerationRequest.model_validate(
            {"prompt": PROMPT, "model": "demo", "schedule": "native", "width": 64, "height": 64}
            | fields
        )
        assert np.array_equal(ours, stock.redraw(request, image, region))


def test_equal_exact_requests_give_equal_files_in_any_company(stack: Stack) -> None:
    request = {"prompt": PROMPT, "steps": 6, "seed": 11, "determinism": "exact"}
    first = stack.submit(**request)
    stack.wait([first["id"]])
    company = [stack.submit(prompt="a blue ring", steps=6, guidance=g) for g in (1, 2, 4)]
    second = stack.submit(**request)
    jobs = stack.wait([first["id"], second["id"], *(job["id"] for job in company)])
    assert jobs[0]["artifacts"][0]["sha256"] == jobs[1]["artifacts"][0]["sha256"]


def test_twenty_mixed_jobs_share_forwards(stack: Stack) -> None:
    jobs = [
        stack.submit(
            prompt=PROMPT,
            sampler=list(Sampler)[n % 4],
            schedule=["native", "karras", "linear", "cosine"][n // 4 % 4],
            steps=10 + n,
            guidance=1 + n % 5,
            determinism=["fast", "exact"][n % 2],
            preset=["balanced", "creative", "precise", "fast", "reference"][n % 5],
        )
        for n in range(20)
    ]
    done = stack.wait([job["id"] for job in jobs])
    assert {job["status"] for job in done} == {"succeeded"}
    shared = [job["execution"]["mean_rows"] for job in done]
    # A job alone has two rows at most.
    assert sum(rows > 2 for rows in shared) >= 15
    assert len({job["artifacts"][0]["sha256"] for job in done}) == 20


def test_a_running_job_is_canceled_within_moments(stack: Stack) -> None:
    job = stack.submit(prompt=PROMPT, sampler="ddpm", steps=1000, guidance=3)
    stack.wait_for_progress([job["id"]])
    answer = stack.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert answer.status_code == 202
    (done,) = stack.wait([job["id"]], timeout_s=20)
    assert done["status"] == "canceled"
    assert stack.http.post(f"/v1/jobs/{job['id']}/cancel").status_code == 200


def test_every_line_of_our_processes_logs_is_json(stack: Stack) -> None:
    job = stack.submit(prompt=PROMPT, steps=2)
    stack.wait([job["id"]])
    stopped = stack.connection["pids"]["worker-1"]
    os.kill(stopped, signal.SIGTERM)  # Celery has something to say then
    wait_until(lambda: stack.connection["pids"]["worker-1"] != stopped)
    named = [
        (name, json.loads(line)["process"])
        for name in ("api", "dispatcher", "worker-1", "worker-2")
        for line in (stack.data_dir / "logs" / f"{name}.log").read_text().splitlines()
    ]
    assert all(file == process for file, process in named)
    assert {"api", "dispatcher"} < {process for _, process in named}


def test_what_workers_measured_predicts_what_a_job_takes(stack: Stack) -> None:
    def predicted() -> dict[str, Any] | None:
        job = stack.submit(prompt="a red star", steps=1)
        return job if job["cost"]["predicted_s"] is not None else None

    # Workers save what they probed at their first sign of life; the API looks every few seconds.
    job = wait_until(predicted, timeout_s=90)
    assert 0 < job["cost"]["predicted_s"] < 60
