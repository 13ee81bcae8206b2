"""`python -m tests.chaos.campaign`: faults at random while jobs come in, then the verdict.

The seed decides which faults come, not when the machine gets to them: a violation that a seed found
once may need several runs to be seen again.
"""

import contextlib
import sys
import tempfile
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Annotated, Any

import httpx
import typer
from sqlalchemy.exc import OperationalError

from bench.cluster import TENANT
from evals.report import Table, print_tables
from shared.errors import ServiceUnavailable
from tests.chaos.faults import FAULTS
from tests.chaos.history import History, Violation, check
from tests.chaos.system import LEASE_S, System, running_system

#: Jobs come this often on average, and so many of them are canceled.
JOB_INTERVAL_S = 0.3
CANCELED_SHARE = 0.1
MAX_STEPS = 60
#: How long after the last fault everything must have ended: time-outs and back-offs first run out.
SETTLE_S = 60.0
#: A job whose time is over ends when there is a dispatcher and a database again.
ANSWERED = frozenset({httpx.codes.ACCEPTED, httpx.codes.SERVICE_UNAVAILABLE})


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a campaign came to."""

    seed: int
    seconds: float
    faults: Counter[str]
    history: History
    violations: list[Violation]

    def tables(self) -> list[Table]:
        """Show what was done, and what became of the jobs."""
        jobs = self.history.jobs.values()
        faults = [[name, str(self.faults[name])] for name in FAULTS]
        ends = Counter(str(job.status) for job in jobs)
        attempts = Counter(f"attempts: {len(job.attempts)}" for job in jobs)
        outcomes = [[name, str(number)] for name, number in sorted((ends + attempts).items())]
        broken = [[one.invariant, one.subject, one.detail] for one in self.violations]
        columns = ["promise", "of", "what happened"]
        return [
            Table("Faults", ["fault", "times"], faults),
            Table("Outcomes", ["jobs", "number"], outcomes),
            *([Table("Broken promises", columns, broken, num_names=3)] if broken else []),
        ]

    def summary(self) -> str:
        """Say it in one line."""
        verdict = f"{len(self.violations)} BROKEN PROMISES" if self.violations else "no violation"
        return (
            f"{len(self.history.accepted)} jobs, {self.faults.total()} faults, {self.seconds:g} s, "
            f"seed {self.seed}: {verdict}"
        )


def run_campaign(system: System, *, seconds: float, seed: int) -> Verdict:
    """Submit jobs and break things for so long; then heal, wait for the end, and judge."""
    system.begin()
    random = Random(seed)
    stopping = threading.Event()
    faults: Counter[str] = Counter()
    until = time.monotonic() + seconds
    with ThreadPoolExecutor(1) as pool:
        customer = pool.submit(_submit, system, Random(seed + 1), stopping)
        try:
            while time.monotonic() < until:
                faults.update(_break_and_heal(system, random))
        finally:
            stopping.set()
    customer.result()
    system.heal()
    late = _wait_for_all(system)
    if not late:
        system.wait_until_told(timeout_s=SETTLE_S)
    history = system.history()
    return Verdict(seed, seconds, faults, history, check(history) + late)


def _break_and_heal(system: System, random: Random) -> list[str]:
    """Let one fault come, or two together, for up to two leases."""
    names = random.sample(list(FAULTS), k=random.choice([1, 1, 2]))
    for name in names:
        FAULTS[name](system, random)
        _look(system, random.uniform(0.2, 1.0) * LEASE_S)
    system.heal()
    _look(system, random.uniform(0.2, 1.0))
    return names


def _look(system: System, seconds: float) -> None:
    """Let time pass, and look at the queue."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        with contextlib.suppress(OperationalError, ServiceUnavailable):
            system.sample()
        time.sleep(min(left, 0.5))


def _submit(system: System, random: Random, stopping: threading.Event) -> None:
    """Be a customer: submit until a job is accepted, and think better of some."""
    while not stopping.wait(random.expovariate(1 / JOB_INTERVAL_S)):
        body = {
            "steps": random.randint(1, MAX_STEPS),
            "num_outputs": random.choice([1, 1, 2]),
            "webhook": {"url": system.receiver.url},
        }
        key = f"{random.getrandbits(64)}"
        while not _is_accepted(system, key, body) and not stopping.wait(0.3):
            pass
        if random.random() < CANCELED_SHARE and system.accepted:
            with contextlib.suppress(OperationalError):
                system.jobs.request_cancel(TENANT, random.choice(system.accepted[-5:]))


def _is_accepted(system: System, key: str, body: dict[str, Any]) -> bool:
    # The seed stands in the key, so that a second try is the same request.
    seed = int(key) % 2**50
    try:
        answer = system.post(key=key, seed=seed, timeout_s=5, **body)
    except httpx.TransportError:
        return False
    if answer.status_code not in ANSWERED:
        raise AssertionError(f"the API answered {answer.status_code}: {answer.text}")
    return bool(answer.status_code == httpx.codes.ACCEPTED)


def _wait_for_all(system: System) -> list[Violation]:
    until = time.monotonic() + SETTLE_S
    for job_id in system.accepted:
        try:
            system.wait([job_id], timeout_s=max(until - time.monotonic(), 0.0))
        except TimeoutError:
            return [Violation("settle", job_id, f"had not ended {SETTLE_S:.0f} s after all faults")]
    return []


def main(
    seconds: Annotated[float, typer.Option(help="How long faults come.")] = 60.0,
    seed: Annotated[int, typer.Option(help="Decides which faults come.")] = 1,
) -> None:
    """Break a LatentQ at random, and judge what became of its jobs."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_system(Path(folder)) as system,
    ):
        verdict = run_campaign(system, seconds=seconds, seed=seed)
    print_tables(verdict.tables())
    print(verdict.summary())  # noqa: T201
    sys.exit(1 if verdict.violations else 0)


if __name__ == "__main__":
    typer.run(main)
