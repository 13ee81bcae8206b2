"""Faults at random; `make chaos` runs the same for as long as one likes."""

import secrets
from collections import Counter

import pytest

from tests.chaos.campaign import Verdict, run_campaign
from tests.chaos.history import History, check
from tests.chaos.system import System


def test_a_violation_is_told_with_the_seed_that_found_it() -> None:
    history = History(frozenset({"job_1"}), {})
    verdict = Verdict(7, 60, Counter(kill_worker=2), history, check(history))
    assert verdict.summary() == "1 jobs, 2 faults, 60 s, seed 7: 1 BROKEN PROMISES"
    assert verdict.tables()[-1].rows == [["I1", "job_1", "was accepted and has no row"]]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [60, pytest.param(600, marks=pytest.mark.slow)])
def test_no_promise_is_broken_by_faults_at_random(shared_system: System, seconds: float) -> None:
    verdict = run_campaign(shared_system, seconds=seconds, seed=secrets.randbelow(10**6))
    assert not verdict.violations, "\n".join([verdict.summary(), *map(str, verdict.violations)])
