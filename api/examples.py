"""Bodies that work, for the OpenAPI document; a test sends each of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Example:
    """A body that the operation takes as it is."""

    summary: str
    value: Mapping[str, Any]


#: By operation, then by name.
EXAMPLES: Mapping[str, Mapping[str, Example]] = {
    "submit_job": {
        "plain": Example(
            "A prompt; all else is the model's and the preset's",
            {"prompt": "a large red star on a yellow background"},
        ),
        "settled": Example(
            "Everything that makes the picture, and the same bytes every time",
            {
                "prompt": "a small frog on a pink background",
                "negative_prompt": "a star",
                "sampler": "euler",
                "schedule": "karras",
                "steps": 20,
                "guidance": 2.5,
                "seed": 7,
                "determinism": "exact",
            },
        ),
        "adapted": Example(
            "With an adapter of the model, at half of its weight",
            {
                "prompt": "a large red star on a yellow background",
                "adapters": [{"id": "gray", "weight": 0.5}],
            },
        ),
        "told": Example(
            "Four pictures in the background, and a call when they are there",
            {
                "prompt": "a green heart on a white background",
                "preset": "fast",
                "num_outputs": 4,
                "service_class": "batch",
                "deadline_s": 3600,
                "webhook": {
                    "url": "https://hooks.example.com/latentq",
                    "events": ["job.succeeded", "job.failed"],
                },
                "metadata": {"order": "1042"},
            },
        ),
    },
    "estimate_job": {
        "asked": Example(
            "What thirty steps would take",
            {"prompt": "a large red star on a yellow background", "steps": 30},
        ),
    },
    "submit_batch": {
        "two": Example(
            "Two jobs, or none",
            {
                "jobs": [
                    {"prompt": "a green heart on a white background", "seed": 1},
                    {"prompt": "a small frog on a pink background", "seed": 2},
                ]
            },
        ),
    },
    "submit_sweep": {
        "grid": Example(
            "Two samplers with two step counts, the same seed for all four",
            {
                "job": {"prompt": "a large red star on a yellow background"},
                "samplers": ["dpmpp_2m", "euler"],
                "steps": [10, 20],
            },
        ),
    },
    "put_preset": {
        "house": Example(
            "Settings under a name of your own",
            {"description": "the house style", "sampler": "euler", "steps": 12, "guidance": 2.5},
        ),
    },
    "create_key": {
        "reader": Example(
            "A key for a month that only reads",
            {"name": "dashboard", "scopes": ["jobs:read"], "expires_in_s": 2_592_000},
        ),
    },
    "create_upload": {
        "announced": Example(
            "What will be sent straight to the store",
            {"content_type": "image/png", "bytes": 6828},
        ),
    },
    "create_webhook_endpoint": {
        "ends": Example(
            "Told how every job ends", {"url": "https://hooks.example.com/latentq/jobs"}
        ),
        "failures": Example(
            "Told of failures only",
            {
                "url": "https://hooks.example.com/latentq/failures",
                "events": ["job.failed"],
                "description": "on call",
            },
        ),
    },
    "update_webhook_endpoint": {
        "enable": Example("Enabled again after it answered 410", {"enabled": True}),
        "narrow": Example("Told of less", {"events": ["job.failed"]}),
    },
}
