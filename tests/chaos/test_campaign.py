"""Faults at random; `make chaos` runs the same for as long as one likes."""

import secrets

import pytest

from tests.chaos.campaign import run_campaign
from tests.chaos.system import System


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seconds", [45, pytest.param(600, marks=pytest.mark.slow)])
def test_no_promise_is_broken_by_faults_at_random(shared_system: System, seconds: float) -> None:
    verdict = run_campaign(shared_system, seconds=seconds, seed=secrets.randbelow(10**6))
    assert not verdict.violations, "\n".join([verdict.summary(), *map(str, verdict.violations)])
