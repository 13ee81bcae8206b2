"""Jobs that one worker breaks off and another goes on with, with real database and store."""

import dataclasses
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

import worker.checkpoint
import worker.task
from cli.standalone.servers import Servers
from models import CATALOG
from shared.catalog import Catalog
from shared.job import MAX_LOST_ALONE, SUSPECTED_AFTER, Job, JobStatus, NewJob
from shared.storage import ObjectStore, checkpoint_key, checkpoints_prefix, parse_checkpoint_key
from shared.store_address import StoreAddress
from tests.fixtures.stack import wait_until
from tests.worker.conftest import Bench
from tests.worker.test_checkpoint import STATE
from worker.checkpoint_keeper import MAX_STORED, NUM_KEPT, CheckpointKeeper
from worker.engine import JobState, ModelCache

MakeJob = Callable[..., NewJob]
MakeBench = Callable[[], Bench]
#: A store that nobody is.
NOWHERE = ObjectStore(
    StoreAddress(
        endpoint="http://127.0.0.1:1",
        bucket="b",
        access_key="k",
        secret_key="s",
    )
)


@pytest.fixture
def make_bench(database: sa.Engine, servers: Servers, models: ModelCache) -> Iterator[MakeBench]:
    """Start workers that store a state at almost each step."""
    benches: list[Bench] = []

    def make() -> Bench:
        benches.append(Bench(database, servers, models, state_interval_s=0.05))
        benches[-1].start()
        return benches[-1]

    yield make
    for bench in benches:
        bench.stop()


@pytest.fixture(autouse=True)
def leave_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have workers hand back what a quick machine would finish before it leaves."""
    monkeypatch.setattr(worker.task, "FINISH_WITHIN_S", 0.0)


@pytest.fixture
def job(make_job: MakeJob) -> NewJob:
    """A job whose steps draw noise."""
    return rename(make_job(sampler="dpmpp_2m_sde", steps=16, determinism="exact"))


@pytest.fixture
def cheap(make_job: MakeJob) -> NewJob:
    """A job with a forward of one row."""
    return rename(make_job(sampler="dpmpp_2m_sde", steps=30, guidance=1.0))


def rename(job: NewJob) -> NewJob:
    """Tell a job from those of other tests, which use the same bucket and number theirs from 0."""
    return dataclasses.replace(job, id=f"job_{uuid4().hex}")


def keys_of(bench: Bench, job_id: str) -> list[str]:
    return [found.key for found in bench.store.list_all(checkpoints_prefix(job_id))]


def break_off(bench: Bench, job: NewJob) -> str:
    """Let a worker begin a job and leave it; returns the key of the state that it leaves."""
    bench.jobs.insert(job)
    thread = bench.run_beside(job.id)
    bench.task.drain()
    thread.join(timeout=20)
    assert bench.get(job.id).status is JobStatus.QUEUED
    return max(keys_of(bench, job.id), key=iteration_of)


def iteration_of(key: str) -> int:
    place = parse_checkpoint_key(key)
    assert place is not None
    return place[1]


def run_whole(bench: Bench, job: NewJob, make_job: MakeJob) -> Job:
    """Run the same request as another job, without a break."""
    twin = make_job(**job.request.model_dump())
    bench.jobs.insert(twin)
    bench.task.run(twin.id)
    return bench.get(twin.id)


def assert_same_files(one: Job, other: Job) -> None:
    assert one.status is other.status is JobStatus.SUCCEEDED
    assert [a.sha256 for a in one.artifacts] == [a.sha256 for a in other.artifacts] != []


def resumed_at(job: Job) -> int | None:
    assert job.execution is not None
    at: int | None = job.execution["resumed_at"]
    return at


def test_a_job_that_was_handed_back_goes_on_where_it_was(
    make_bench: MakeBench, job: NewJob, make_job: MakeJob
) -> None:
    first, second = make_bench(), make_bench()
    left = break_off(first, job)
    iteration = iteration_of(left)
    with capture_logs() as logs:
        second.task.run(job.id)
    done = second.get(job.id)
    assert ("checkpoint_read", iteration) in [(log["event"], log.get("iteration")) for log in logs]
    assert resumed_at(done) == done.resumed_at == iteration > 0
    assert (done.iteration, done.attempt) == (job.request.iterations, 2)
    assert_same_files(done, run_whole(second, job, make_job))
    ran = second.jobs.attempts("tenant", job.id)
    assert [one.resumed_at for one in ran] == [None, iteration]
    assert keys_of(second, job.id) == []


@pytest.mark.slow  # tests/chaos kills one that has the real model, too
def test_a_job_of_a_worker_that_was_lost_goes_on_from_what_it_stored(
    make_bench: MakeBench, job: NewJob, make_job: MakeJob
) -> None:
    first, second = make_bench(), make_bench()
    first.jobs.insert(job)
    thread = first.run_beside(job.id)
    wait_until(lambda: keys_of(first, job.id))
    first.expire_leases()
    first.keeper.beat()
    thread.join(timeout=20)
    second.task.run(job.id)
    done = second.get(job.id)
    assert (resumed_at(done) or 0) > 0
    assert_same_files(done, run_whole(second, job, make_job))
    assert keys_of(second, job.id) == []


def spoil(bench: Bench, key: str, data: bytes) -> None:
    bench.store.delete([key])
    bench.store.put(key, data, content_type="text/plain")


def lose(bench: Bench, key: str, _: pytest.MonkeyPatch) -> None:
    bench.store.delete([key])


def cut(bench: Bench, key: str, _: pytest.MonkeyPatch) -> None:
    spoil(bench, key, bench.store.get(key)[:-100])


def empty(bench: Bench, key: str, _: pytest.MonkeyPatch) -> None:
    spoil(bench, key, b"")


def update(bench: Bench, _: str, __: pytest.MonkeyPatch) -> None:
    libraries = {"torch": "newer"}
    checkpoints = CheckpointKeeper(bench.store, Catalog.load(CATALOG), libraries=libraries)
    bench.task._checkpoints = checkpoints


def downgrade(bench: Bench, _: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(worker.checkpoint, "SCHEMA", 0)


def unplug(bench: Bench, _: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(bench.checkpoints, "_store", NOWHERE)


def use_other_threads(_: Bench, __: str, patch: pytest.MonkeyPatch) -> None:
    patch.setattr("torch.get_num_threads", lambda: 99)


@pytest.mark.parametrize(
    ("happens", "says"),
    [
        pytest.param(lose, "no checkpoint", marks=pytest.mark.slow),
        (cut, "broken"),
        pytest.param(empty, "no checkpoint", marks=pytest.mark.slow),
        pytest.param(update, "its versions was", marks=pytest.mark.slow),
        pytest.param(downgrade, "its schema is 1", marks=pytest.mark.slow),
        (unplug, "the object store does not answer"),
        (use_other_threads, "here it is 99"),
    ],
)
def test_without_a_state_that_fits_a_job_starts_over(
    make_bench: MakeBench,
    cheap: NewJob,
    monkeypatch: pytest.MonkeyPatch,
    happens: Callable[[Bench, str, pytest.MonkeyPatch], None],
    says: str,
) -> None:
    first, second = make_bench(), make_bench()
    left = break_off(first, cheap)
    second.store.delete([key for key in keys_of(second, cheap.id) if key != left])
    happens(second, left, monkeypatch)
    with capture_logs() as logs:
        second.task.run(cheap.id)
    done = second.get(cheap.id)
    assert (done.status, done.iteration, resumed_at(done)) == (JobStatus.SUCCEEDED, 30, None)
    (why,) = [log["why"] for log in logs if log["event"] == "job_starts_over"]
    assert says in why
    assert [one.resumed_at for one in second.jobs.attempts("tenant", cheap.id)] == [None, None]


def test_a_store_that_is_away_keeps_no_job_from_being_handed_back(
    bench: Bench, cheap: NewJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    unplug(bench, "", monkeypatch)
    bench.jobs.insert(cheap)
    thread = bench.run_beside(cheap.id)
    bench.task.drain()
    thread.join(timeout=20)
    assert bench.get(cheap.id).status is JobStatus.QUEUED


def test_the_last_try_of_a_suspected_job_begins_at_the_beginning(
    make_bench: MakeBench, cheap: NewJob
) -> None:
    first, second = make_bench(), make_bench()
    break_off(first, cheap)
    with first.database.begin() as connection:
        connection.execute(
            sa.text("UPDATE jobs SET lost_leases = :lost, lost_alone = :alone"),
            {"lost": SUSPECTED_AFTER + MAX_LOST_ALONE - 1, "alone": MAX_LOST_ALONE - 1},
        )
    with capture_logs() as logs:
        second.task.run(cheap.id)
    assert resumed_at(second.get(cheap.id)) is None
    (why,) = [log["why"] for log in logs if log["event"] == "job_starts_over"]
    assert "may be what kills its workers" in why


def test_what_is_replaced_is_deleted_and_what_comes_too_late_is_not_stored(
    bench: Bench, job: NewJob
) -> None:
    bench.jobs.insert(job)
    claim = bench.leases.claim(job.id, worker="w")
    assert claim is not None
    lease = claim.lease
    bench.checkpoints.hold(claim)
    for iteration in range(1, MAX_STORED + 3):
        output = dataclasses.replace(STATE.outputs[0], iteration=iteration)
        bench.checkpoints.take(lease, JobState(STATE.conditions, (output,)))
        key = checkpoint_key(job.id, attempt=lease.attempt, token=lease.token, iteration=iteration)
        wait_until(lambda: key in keys_of(bench, job.id))  # noqa: B023
    assert len(keys_of(bench, job.id)) == NUM_KEPT + 2
    bench.checkpoints.drop(lease, has_ended=True)
    bench.checkpoints.take(lease, STATE)
    bench.checkpoints.save(lease, STATE)
    assert keys_of(bench, job.id) == []
