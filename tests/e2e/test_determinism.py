"""Exact jobs over HTTP: the same files, in whatever order and company they come."""

import hashlib
import random
from typing import Any

import httpx

from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import CONSISTENCY, DIFFUSION_SAMPLERS, find_refusal
from shared.vocab import OUTPUT_FORMATS, Medium, Schedule
from tests.fixtures.stack import Stack

NUM_JOBS = 30
FORMATS = OUTPUT_FORMATS[Medium.IMAGE]


def thirty_bodies() -> list[dict[str, Any]]:
    spec = Catalog.load(CATALOG).models["demo"]
    samplers = [sampler for sampler in DIFFUSION_SAMPLERS if sampler not in CONSISTENCY]
    bodies = []
    for number in range(NUM_JOBS):
        sampler = samplers[number % len(samplers)]
        schedules = [s for s in Schedule if find_refusal(sampler, s, spec) is None]
        bodies.append(
            {
                "prompt": ["a large red star", "a small green frog"][number % 2],
                "sampler": sampler,
                "schedule": schedules[number % len(schedules)],
                "steps": 4 + number % 7,
                "guidance": [1, 2, 7.5][number % 3],
                "seed": number,
                "num_outputs": 2 if number % 10 == 0 else 1,
                "output_format": FORMATS[number % len(FORMATS)],
                "determinism": "exact",
            }
        )
    return bodies


def draw_in_order(stack: Stack, bodies: list[dict[str, Any]], order: list[int]) -> list[list[str]]:
    """Submit jobs in an order; returns the digests of the files of each, in the order of bodies."""
    ids = {number: stack.submit(**bodies[number])["id"] for number in order}
    jobs = stack.wait([ids[number] for number in range(len(bodies))])
    digests = []
    with httpx.Client() as client:
        for job in jobs:
            assert job["status"] == "succeeded", job["error"]
            files = [client.get(artifact["url"]) for artifact in job["artifacts"]]
            fetched = [hashlib.sha256(f.raise_for_status().content).hexdigest() for f in files]
            assert fetched == [artifact["sha256"] for artifact in job["artifacts"]]
            digests.append(fetched)
    return digests


def test_thirty_mixed_exact_jobs_in_two_orders_give_equal_files(stack: Stack) -> None:
    bodies = thirty_bodies()
    first = list(range(NUM_JOBS))
    second = random.Random(1).sample(first, k=NUM_JOBS)
    files = draw_in_order(stack, bodies, first)
    assert draw_in_order(stack, bodies, second) == files
    # Different jobs, different files: nothing was compared with itself.
    assert len({digest for digests in files for digest in digests}) == NUM_JOBS + 3
