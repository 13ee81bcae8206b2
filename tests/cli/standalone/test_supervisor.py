import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from cli.standalone.child import Child, ChildSpec
from cli.standalone.guardian import Guardian, Ward
from cli.standalone.supervisor import LONGEST_DELAY_S, SETTLED_S, Supervisor
from shared.errors import ConfigurationError
from tests.fixtures.stack import wait_until


class Time:
    """A clock that a test moves."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


class Watch:
    """A supervisor with what it said."""

    def __init__(self) -> None:
        self.time = Time()
        self.said: list[str] = []
        self.restarts: list[None] = []
        self.supervisor = Supervisor(
            say=self.said.append, on_restart=lambda: self.restarts.append(None), clock=self.time
        )


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.supervisor.stop([])


def child(tmp_path: Path, *command: str) -> Child:
    return Child(
        ChildSpec(
            name="child",
            command=command,
            environment={},
            log_path=tmp_path / "child.log",
            is_ready=lambda: True,
        )
    )


def test_a_child_that_dies_again_and_again_is_started_with_growing_delays(
    watch: Watch, tmp_path: Path
) -> None:
    mortal = child(tmp_path, "/bin/sleep", "60")
    watch.supervisor.start(mortal)
    delays = []
    for _ in range(8):
        mortal.kill()
        wait_until(lambda: not mortal.is_alive)
        watch.supervisor.look_after()
        assert watch.said[-1].startswith("child died, exit code -9; starting it again in ")
        died_at = watch.time.now
        while not mortal.is_alive:
            watch.time.now += 0.05
            watch.supervisor.look_after()
        delays.append(watch.time.now - died_at)
    assert delays == pytest.approx([0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 10, 10], abs=0.06)
    assert max(delays) <= LONGEST_DELAY_S + 0.06
    assert len(watch.restarts) == 8

    # It settles, and is forgiven.
    watch.time.now += SETTLED_S + 1
    mortal.kill()
    wait_until(lambda: not mortal.is_alive)
    watch.supervisor.look_after()
    assert watch.said[-1].endswith("again in 0.2 s")


def test_a_guardian_that_dies_is_replaced(watch: Watch, tmp_path: Path) -> None:
    sleeper = child(tmp_path, "/bin/sleep", "60")
    watch.supervisor.start(sleeper)
    guardian = watch.supervisor._guardian
    before = guardian.pid
    psutil.Process(before).kill()
    wait_until(lambda: guardian._process.poll() is not None)
    watch.supervisor.look_after()
    assert guardian.pid != before
    guardian.dismiss()
    assert not sleeper.is_alive
    guardian._start()


def test_a_program_that_is_not_there_is_said(watch: Watch, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="child"):
        watch.supervisor.start(child(tmp_path, "/nowhere/program"))


def test_children_that_do_not_listen_are_killed(watch: Watch, tmp_path: Path) -> None:
    deaf = child(tmp_path, "/bin/sh", "-c", "trap '' TERM; echo ready; while :; do sleep 1; done")
    watch.supervisor.start(deaf)
    wait_until(lambda: "ready" in (tmp_path / "child.log").read_text())
    watch.supervisor.stop([([deaf], 0.3)])
    assert not deaf.is_alive
    watch.supervisor._guardian._start()


def test_the_guardian_ends_what_a_killed_supervisor_leaves() -> None:
    program = (
        "import subprocess, signal, time\n"
        "from cli.standalone.guardian import Guardian\n"
        "guardian = Guardian()\n"
        "child = subprocess.Popen(['/bin/sleep', '60'], start_new_session=True)\n"
        "guardian.watch(child.pid, signal.SIGTERM)\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert supervisor.stdout is not None
    pid = int(supervisor.stdout.readline())
    assert psutil.pid_exists(pid)
    supervisor.kill()
    supervisor.wait()
    supervisor.stdout.close()

    def is_gone() -> bool:
        return not psutil.pid_exists(pid) or psutil.Process(pid).status() == "zombie"

    wait_until(is_gone, timeout_s=10)


def test_the_guardian_leaves_a_process_alone_that_inherited_a_number() -> None:
    sleeper = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True)
    born_at = psutil.Process(sleeper.pid).create_time()
    assert Ward(sleeper.pid, born_at, signal.SIGTERM).is_alive
    assert not Ward(sleeper.pid, born_at - 1, signal.SIGTERM).is_alive
    guardian = Guardian()
    guardian._tell(Ward(sleeper.pid, born_at - 1, signal.SIGTERM))
    guardian.dismiss()
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()
