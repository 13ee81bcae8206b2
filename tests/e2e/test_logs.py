"""Whatever is said of a job can be found by its id."""

import json
import re

from tests.fixtures.receiver import run_receiver
from tests.fixtures.stack import JsonObject, Stack, wait_until

JOB_ID = re.compile(r"job_[0-9a-f]{32}")


def read_lines(stack: Stack) -> list[JsonObject]:
    lines = [line for line in stack.logs().splitlines() if line.startswith('{"')]
    return [json.loads(line) for line in lines]


def test_every_line_about_a_job_has_its_id_and_those_of_an_attempt_its_number(
    stack: Stack,
) -> None:
    with run_receiver() as receiver:
        job = stack.submit(prompt="a red star", steps=2, webhook={"url": receiver.url})
        stack.wait([job["id"]])
        wait_until(lambda: receiver.received, timeout_s=30)

    def of_job() -> list[JsonObject] | None:
        lines = [line for line in read_lines(stack) if line.get("job_id") == job["id"]]
        return lines if any(line["event"] == "delivery_attempted" for line in lines) else None

    lines = wait_until(of_job)
    said = {(line["process"].partition("-")[0], line["event"]) for line in lines}
    assert said >= {
        ("api", "job_accepted"),
        ("worker", "job_started"),
        ("worker", "job_succeeded"),
        ("dispatcher", "delivery_attempted"),
    }
    for line in lines:
        if line["process"].startswith("worker"):
            assert line["attempt"] == 1
        # The same trace in all processes.
        if line["event"] in {"job_started", "job_succeeded"}:
            assert re.fullmatch(r"[0-9a-f]{32}", line["trace_id"])
    for line in read_lines(stack):
        if JOB_ID.search(json.dumps(line)):
            assert {"job_id", "jobs"} & line.keys(), line
