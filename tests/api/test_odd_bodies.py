"""Bodies of other APIs that nobody should send: refused, and nothing comes of them."""

import json
from typing import Any

from tests.fixtures.api import Api

VALUES: list[Any] = [
    None, True, 0, -1, 2**70, 1.5, "", "\0", "\ud800", "x" * 5000, [], [[]], {}, {"a": {}},
]  # fmt: skip
IMAGE_FIELDS = (
    "prompt", "model", "n", "size", "response_format", "output_format", "partial_images",
    "num_inference_steps", "guidance_scale", "seed", "metadata", "webhook", "init_image", "mask",
)  # fmt: skip
PREDICTION_FIELDS = ("input", "version", "webhook", "webhook_completed", "webhook_events_filter")
INPUTS = ("prompt", "image", "mask", "prompt_strength", "guidance_scale", "width", "webhook")


def check(api: Api, path: str, body: Any) -> None:
    answer = api.client.post(
        path,
        content=json.dumps(body, ensure_ascii=True),
        headers={"Content-Type": "application/json"},
    )
    assert 400 <= answer.status_code < 500, (path, body, answer.text)
    assert answer.headers["Content-Type"] == "application/problem+json"


def test_odd_bodies_make_no_job(api: Api) -> None:
    path = "/openai/v1/images/generations"
    for body in [*VALUES, *({"prompt": value} for value in VALUES)]:
        check(api, path, body)
    for name in IMAGE_FIELDS:
        for value in VALUES:
            # The strength keeps what might be right from being made.
            check(api, path, {"prompt": "p", name: value, "strength": 2})
    path = "/replicate/v1/predictions"
    right: dict[str, Any] = {"version": "3", "input": {"prompt": "p", "strength": 2}}
    for body in [*VALUES, *(right | {name: v} for name in PREDICTION_FIELDS for v in VALUES)]:
        check(api, path, body)
    for name in INPUTS:
        for value in VALUES:
            check(api, path, right | {"input": right["input"] | {name: value}})
    assert api.count_jobs() == 0
