"""What a caller writes is in PostgreSQL, in the file and in the job's own answers; nowhere else."""

import base64
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import redis

from api.schemas import JobCreate
from tests.fixtures.collector import Collector, Span
from tests.fixtures.stack import JsonObject, Stack, wait_until

#: No word of ours has it in it, however it is spelt.
CANARY = "canarykwyjibo"
#: Fields that are what it is, a text.
TEXTS = {"prompt", "negative_prompt"}
#: In the place of a name; one word alone is shown, so that a caller learns which name is wrong.
NAME = f"a {CANARY}"
READ: Mapping[str, Callable[[Any, bytes], Any]] = {
    "string": lambda client, key: client.get(key),
    "list": lambda client, key: client.lrange(key, 0, -1),
    "set": lambda client, key: client.smembers(key),
    "zset": lambda client, key: client.zrange(key, 0, -1),
    "hash": lambda client, key: client.hgetall(key),
    "stream": lambda client, key: client.xrange(key),
}


def spellings() -> list[str]:
    """The canary as it stands in text, in hexadecimal, and in base64 wherever it begins."""
    word = CANARY.encode()
    encoded = [base64.b64encode(b"_" * shift + word).decode() for shift in range(3)]
    return [CANARY, word.hex(), *(text[4:-4] for text in encoded)]


def holds_canary(text: str) -> bool:
    return any(spelling in text for spelling in spellings())


@contextmanager
def overhearing(url: str) -> Iterator[list[str]]:
    """Note every command that anybody sends to Redis meanwhile."""
    heard: list[str] = []
    client = redis.Redis.from_url(url)
    with client.monitor() as monitor:

        def listen() -> None:
            for command in monitor.listen():
                heard.append(command["command"])
                if command["command"] == "ECHO enough":
                    return

        thread = threading.Thread(target=listen, daemon=True)
        thread.start()
        yield heard
        client.echo("enough")
        thread.join(10)
        assert not thread.is_alive()
    client.close()


def keep(url: str) -> str:
    """Everything that Redis holds."""
    with redis.Redis.from_url(url) as client:
        keys = list(client.scan_iter())
        return repr([(key, READ[client.type(key).decode()](client, key)) for key in keys])


def refusals(stack: Stack) -> list[str]:
    """Problems that requests with the canary in one place each are answered by."""
    job: JsonObject = {"prompt": CANARY, "negative_prompt": CANARY}
    bodies: list[JsonObject] = [
        *(job | {field: CANARY} for field in JobCreate.model_fields.keys() - TEXTS),
        *(job | {field: [CANARY]} for field in JobCreate.model_fields),
        *(job | {field: f"{CANARY} " * 400} for field in TEXTS),
        job | {NAME: CANARY},
        job | {"metadata": {NAME: {NAME: CANARY}}},
        job | {"metadata": dict.fromkeys((f"{CANARY}{n}" for n in range(17)), CANARY)},
        job | {"webhook": {"url": f"ftp://{CANARY}.test/", "events": [CANARY]}},
    ]
    http = stack.http
    answers = [http.post("/v1/jobs", json=body) for body in bodies]
    answers += [http.post("/v1/estimates", json=body) for body in bodies]
    answers.append(http.post("/v1/batches", json={"jobs": bodies}))
    answers.append(http.post("/v1/sweeps", json={"job": job, "samplers": [CANARY]}))
    answers.append(http.put("/v1/presets/mine", json={NAME: CANARY}))
    answers.append(http.put("/v1/presets/mine", json={"description": CANARY, "sampler": CANARY}))
    answers.append(http.post("/v1/uploads", files={NAME: CANARY.encode()}))
    answers.append(http.post("/v1/webhook-endpoints", json={"url": CANARY}))
    answers.append(http.get("/v1/jobs", params={NAME: CANARY}))
    answers.append(http.get("/v1/jobs", params={"status": CANARY}))
    answers.append(http.post("/v1/jobs", json=job, headers={"Idempotency-Key": CANARY * 20}))
    answers.append(http.post("/v1/jobs", content=f'{{"prompt": "{CANARY}'.encode()))
    for answer in answers:
        assert 400 <= answer.status_code < 500, answer.text
        assert answer.headers["Content-Type"] == "application/problem+json"
    return [answer.text + repr(answer.headers) for answer in answers]


def test_what_a_caller_writes_is_in_no_log_metric_span_or_problem_and_not_in_redis(
    stack: Stack, collector: Collector
) -> None:
    redis_url = stack.connection["redis_url"]
    said = {"prompt": f"a {CANARY}", "negative_prompt": CANARY, "metadata": {"note": CANARY}}
    with overhearing(redis_url) as heard:
        preset = {"description": CANARY, "steps": 2}
        assert stack.http.put("/v1/presets/mine", json=preset).status_code in {200, 201}
        good = stack.submit(**said, preset="mine")
        late = stack.submit(**said, sampler="ddpm", steps=1000, guidance=3, deadline_s=1)
        succeeded, failed = stack.wait([good["id"], late["id"]])
        kept = keep(redis_url)
        problems = refusals(stack)
    stack.http.delete("/v1/presets/mine")

    assert (succeeded["status"], failed["status"]) == ("succeeded", "failed")
    for job in (succeeded, failed):
        assert holds_canary(str(job["request"]))
    assert [problem for problem in problems if holds_canary(problem)] == []
    logs = stack.logs()
    assert "job_succeeded" in logs
    assert not holds_canary(logs)
    pages = stack.metrics()
    assert len(pages) == 4
    assert not [name for name, page in pages.items() if holds_canary(page)]
    # Metrics are about all jobs, so that no name of any of them is there.
    assert not [name for name, page in pages.items() if "job_0" in page or "default" in page]

    def told() -> list[Span]:
        ids = {job["id"] for job in (good, late)}
        return [span for span in collector.spans if span.attributes.get("latentq.job_id") in ids]

    assert {"submit", "attempt"} <= {span.name for span in wait_until(told)}
    assert not holds_canary(repr(collector.spans))
    # It was told of the jobs, and of nothing in them.
    assert good["id"] in "\n".join(heard)
    assert not holds_canary("\n".join(heard))
    assert not holds_canary(kept)
