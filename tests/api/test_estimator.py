from datetime import datetime, timedelta

import pytest
import sqlalchemy as sa

from api.upkeep import Upkeep
from shared.db.costs import CostRepository
from shared.db.leases import Beat, LeaseRepository
from shared.db.presence import WorkerRepository
from shared.estimate import CostCell, Stage, Workload
from tests.fixtures.api import Api


def measure(database: sa.Engine, ms: float, *, device: str = "cpu") -> None:
    """Let a worker of a device live, on which a row of a forward costs some milliseconds."""
    queues = ["demo.interactive", "demo.batch"]
    WorkerRepository(database).beat(f"on {device}", device=device, queues=queues, slots=8)
    workload = Workload(Stage.FORWARD, (1, 4, 16, 16), 77)
    CostRepository(database).save([CostCell("demo", device, workload, 1, ms, 5)])


def test_a_job_says_what_it_is_predicted_to_take(api: Api, database: sa.Engine) -> None:
    measure(database, 10.0)
    api.services.estimator.refresh()
    job = api.submit(sampler="ddim", steps=20, guidance=3, num_outputs=2)
    assert job["cost"]["predicted_s"] == pytest.approx(20 * 2 * 2 * 0.010)
    assert api.client.get(job["links"]["self"]).json()["cost"] == job["cost"]
    (listed,) = api.client.get("/v1/jobs").json()["data"]
    assert listed["cost"] == job["cost"]


def test_what_is_learned_later_changes_later_jobs_only(api: Api, database: sa.Engine) -> None:
    before = api.submit(steps=10)
    measure(database, 10.0)
    # The picture of the fleet is looked at as it is: no query on a request's way.
    assert api.submit(steps=10)["cost"]["predicted_s"] is None
    api.services.estimator.refresh()
    assert api.submit(steps=10)["cost"]["predicted_s"] is not None
    assert api.client.get(before["links"]["self"]).json()["cost"]["predicted_s"] is None


def test_a_thread_looks_at_the_fleet(api: Api, database: sa.Engine) -> None:
    measure(database, 10.0)
    upkeep = Upkeep([api.services.estimator.refresh])
    upkeep.start()
    upkeep.stop()  # after one look at least
    assert api.submit(steps=10)["cost"]["predicted_s"] is not None


def test_a_queued_job_says_when_all_ahead_of_it_is_done(api: Api, database: sa.Engine) -> None:
    measure(database, 10.0)
    api.services.estimator.refresh()
    ahead = api.submit(sampler="ddim", steps=300, guidance=1)
    job = api.submit(sampler="ddim", steps=300, guidance=1)
    assert ahead["queue"] == {"position": 0, "eta_s": 0.0, "unschedulable": None}
    assert job["queue"] == {"position": 1, "eta_s": 3.0, "unschedulable": None}
    measure(database, 10.0, device="cuda")  # another worker
    assert api.client.get(job["links"]["self"]).json()["queue"]["eta_s"] == 1.5


def test_a_running_job_goes_by_its_cost_until_it_has_a_pace(api: Api, database: sa.Engine) -> None:
    measure(database, 1000.0)
    api.services.estimator.refresh()
    job = api.submit(sampler="ddim", steps=20, guidance=1)
    leases = LeaseRepository(database, lease_s=60)
    claim = leases.claim(job["id"], worker="worker-1")
    assert claim is not None

    def eta_s(iteration: int, *, after_s: float, resumed_at: int | None = None) -> float:
        leases.beat([Beat(claim.lease.token, iteration, resumed_at)])
        shown = api.client.get(job["links"]["self"]).json()
        api.clock.now = datetime.fromisoformat(shown["started_at"]) + timedelta(seconds=after_s)
        eta_s: float = api.client.get(job["links"]["self"]).json()["progress"]["eta_s"]
        return eta_s

    assert eta_s(0, after_s=3) == 20.0
    # Predicted is 1 s for each. As fast as that, and then four times as slow.
    assert eta_s(8, after_s=8) == 12.0
    assert eta_s(8, after_s=32) == pytest.approx((32 + 2) / 10 * 12, abs=0.05)
    assert eta_s(18, after_s=72) == pytest.approx((72 + 2) / 20 * 2, abs=0.05)
    assert eta_s(20, after_s=80) == 0.0
    # What another attempt has done says nothing of this one's pace.
    assert eta_s(10, after_s=1, resumed_at=10) == 10.0
    assert eta_s(18, after_s=32, resumed_at=10) == pytest.approx((32 + 2) / 10 * 2, abs=0.05)
