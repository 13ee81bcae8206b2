"""OpenAI's own SDK, as it comes, against the API."""

import base64
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from openai import OpenAI

from tests.fixtures.live import Live

PICTURE = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture
def client(live: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.url}/openai/v1", api_key=live.key) as client:
        yield client


@pytest.fixture
def calls() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


Generate = Callable[..., Future[Any]]


@pytest.fixture
def generate(client: OpenAI, calls: ThreadPoolExecutor) -> Generate:
    """Ask for pictures on another thread."""

    def call(**fields: Any) -> Future[Any]:
        return calls.submit(client.images.generate, **{"prompt": "a red star"} | fields)

    return call


def test_pictures_come_as_bytes(live: Live, generate: Generate) -> None:
    answer = generate(n=2, size="64x64", extra_body={"seed": 7, "num_inference_steps": 4})
    lease = live.start(live.find_job())
    live.succeed(lease, PICTURE, PICTURE + b"2")
    images = answer.result(10)
    made = [base64.b64decode(image.b64_json) for image in images.data]
    assert made == [PICTURE, PICTURE + b"2"]
    assert (images.output_format, images.size, images.job_id) == ("png", "64x64", lease.job_id)
    job = live.api.services.jobs.get("tenant", lease.job_id)
    request = job.request
    assert (request.num_outputs, request.width, request.seed, request.steps) == (2, 64, 7, 4)
