import pytest
import sqlalchemy as sa

from shared.db.costs import CostRepository
from shared.db.leases import WorkerRepository
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
    estimator = api.services.estimator
    estimator.start()
    estimator.stop()  # after one look at least
    assert api.submit(steps=10)["cost"]["predicted_s"] is not None
