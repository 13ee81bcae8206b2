"""`latentq top` beside a running system."""

import json
import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path

from tests.fixtures.stack import JsonObject, Stack, free_port, wait_until

LATENTQ = Path(sys.executable).with_name("latentq")


def run(stack: Stack, *arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [LATENTQ, "top", *arguments],
        env={
            "PATH": os.environ["PATH"],
            "COLUMNS": "140",
            "LATENTQ_DATABASE_URL": stack.connection["database_url"],
        }
        | variables,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_top_shows_what_runs_and_who_runs_it(stack: Stack) -> None:
    job = stack.submit(prompt="a red star", sampler="ddpm", steps=1000, num_outputs=8)
    stack.wait_for_progress([job["id"]])

    def busy() -> JsonObject | None:
        ended = run(stack, "--json")
        assert ended.returncode == 0, ended.stderr
        fleet: JsonObject = json.loads(ended.stdout)
        return fleet if any(w["running"] for w in fleet["workers"]) else None

    fleet = wait_until(busy)
    table = run(stack, "--once")
    stack.http.post(f"/v1/jobs/{job['id']}/cancel")
    assert fleet["jobs"]["running"] >= 1
    (demo,) = (row for row in fleet["models"] if row["model"] == "demo")
    assert (demo["workers"], demo["slots"]) == (2, 16)
    assert demo["backlog_s"] > 0
    first, second = fleet["workers"]
    assert first["id"].startswith("worker-1@")
    assert first["warm_models"] == second["warm_models"] == ["demo"]
    assert fleet["dispatchers"] == 1
    assert table.returncode == 0
    assert first["id"] in table.stdout
    assert "backlog" in table.stdout


def test_top_stays_until_it_is_told_to_go(stack: Stack) -> None:
    terminal, theirs = pty.openpty()
    process = subprocess.Popen(
        [LATENTQ, "top", "--interval", "0.2"],
        env={
            "PATH": os.environ["PATH"],
            "TERM": "xterm",
            "COLUMNS": "140",
            "LATENTQ_DATABASE_URL": stack.connection["database_url"],
        },
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    shown = b""
    deadline = time.monotonic() + 30
    while shown.count(b"worker-1@") < 2 and time.monotonic() < deadline:
        if select.select([terminal], [], [], 1.0)[0]:
            shown += os.read(terminal, 65_536)
    assert shown.count(b"worker-1@") >= 2
    os.write(terminal, b"q")
    assert process.wait(timeout=10) == 0
    os.close(terminal)


def test_top_says_what_keeps_it_from_looking(stack: Stack) -> None:
    nowhere = f"postgresql://x:x@127.0.0.1:{free_port()}/x"
    assert run(stack, "--once", LATENTQ_DATABASE_URL=nowhere).returncode == 3
