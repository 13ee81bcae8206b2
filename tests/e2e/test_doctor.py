"""`latentq doctor` beside a running system."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fixtures.stack import LEASE_S, Stack, free_port

LATENTQ = Path(sys.executable).with_name("latentq")


def examine(folder: Path, **variables: str) -> tuple[int, dict[str, Any]]:
    """Run the doctor; returns its exit code and each check by name."""
    ended = subprocess.run(
        [LATENTQ, "doctor", "--json"],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **variables},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "Traceback" not in ended.stderr
    report = json.loads(ended.stdout)
    assert report["healthy"] == (ended.returncode == 0)
    return ended.returncode, {check["name"]: check for check in report["checks"]}


def wrong(checks: dict[str, Any]) -> set[str]:
    return {name for name, check in checks.items() if check["status"] == "wrong"}


@pytest.mark.slow
def test_the_doctor_sees_a_worker_come_and_go(tmp_path: Path) -> None:
    with Stack(tmp_path / ".latentq", workers=0) as stack:
        variables = stack.variables()
        first = stack.submit(prompt="a small green frog", steps=2)["id"]
        worker = subprocess.Popen(
            [LATENTQ, "worker"],
            cwd=tmp_path,
            env={"PATH": os.environ["PATH"], **variables},
            stderr=subprocess.DEVNULL,
        )
        try:
            stack.wait([first])
            exit_code, checks = examine(tmp_path)
            assert (exit_code, wrong(checks)) == (0, set())
        finally:
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(timeout=LEASE_S + 10) == 0
        stack.submit(prompt="a small green frog", steps=2)

        exit_code, checks = examine(tmp_path, **variables)
        assert (exit_code, wrong(checks)) == (1, {"models_without_worker", "unschedulable_jobs"})
        assert checks["unschedulable_jobs"]["amount"] == 1
        assert "start a worker" in checks["unschedulable_jobs"]["remedy"]

        nowhere = f"postgresql://x:x@127.0.0.1:{free_port()}/x"
        exit_code, checks = examine(tmp_path, **variables | {"LATENTQ_DATABASE_URL": nowhere})
        assert (exit_code, wrong(checks)) == (3, {"postgresql_unreachable"})
        assert checks["stale_leases"]["status"] == "unknown"
