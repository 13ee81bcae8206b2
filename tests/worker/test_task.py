"""One job from claim to finish, with the real engine, database and store."""

import hashlib
import io
import json
import threading
from collections.abc import Callable

import pytest
import sqlalchemy as sa
from PIL import Image

from shared.db.dispatch import DispatchRepository
from shared.errors import ErrorCode
from shared.job import SUSPECTED_AFTER, JobStatus, NewJob
from tests.fixtures.pictures import picture
from tests.fixtures.stack import wait_until
from tests.worker.conftest import Bench

MakeJob = Callable[..., NewJob]


def test_a_job_ends_with_its_outputs_in_the_store(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(steps=3, num_outputs=2))
    bench.task.run(job.id)
    done = bench.get(job.id)
    assert done.status is JobStatus.SUCCEEDED
    assert done.iteration == done.request.iterations == 6
    assert done.execution is not None
    assert done.execution["worker"] == "bench"
    assert (done.execution["device_options"], done.execution["decoder_tiles"]) == ({}, 1)
    for artifact in done.artifacts:
        data = bench.store.get(artifact.key)
        assert hashlib.sha256(data).hexdigest() == artifact.sha256
        assert len(data) == artifact.num_bytes


def test_a_job_starts_from_its_pictures_whatever_they_are_called(
    bench: Bench, make_job: MakeJob
) -> None:
    image, mask = bench.upload(picture()), bench.upload(picture("JPEG"))
    jobs = [
        make_job(steps=4, strength=0.5, init_image=image, mask=mask, determinism="exact"),
        make_job(steps=4, strength=0.5, init_image=image, determinism="exact"),
        make_job(steps=4, determinism="exact"),
    ]
    for job in jobs:
        bench.jobs.insert(job)
        bench.task.run(job.id)
    masked, redrawn, fresh = (bench.get(job.id) for job in jobs)
    assert masked.status is redrawn.status is fresh.status is JobStatus.SUCCEEDED
    assert [job.iteration for job in (masked, redrawn, fresh)] == [2, 2, 4]
    data = bench.store.get(masked.artifacts[0].key)
    recipe = json.loads(Image.open(io.BytesIO(data)).info["latentq"])["request"]
    shas = {"init_image": {"sha256": image["sha256"]}, "mask": {"sha256": mask["sha256"]}}
    assert {name: recipe[name] for name in shas} == shas
    assert len({job.artifacts[0].sha256 for job in (masked, redrawn, fresh)}) == 3


@pytest.mark.parametrize("spoilt", ["init_image", "mask"])
@pytest.mark.parametrize(
    ("case", "says"),
    [
        ("damaged", "cannot be decoded"),
        ("gone", "is stored no longer"),
        ("exchanged", "is not what was uploaded"),
    ],
)
def test_a_picture_that_cannot_be_used_fails_the_job_by_its_field(
    bench: Bench, make_job: MakeJob, spoilt: str, case: str, says: str
) -> None:
    good = bench.upload(picture())
    bad = {
        "damaged": bench.upload(picture()[:-100]),
        "gone": bench.note_upload(),
        "exchanged": bench.upload(picture(), sha256="ab" * 32),
    }[case]
    pictures = {"init_image": good, "mask": good} | {spoilt: bad}
    bench.jobs.insert(job := make_job(strength=0.5, **pictures))
    bench.task.run(job.id)
    failed = bench.get(job.id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.INVALID_INPUT)
    assert (failed.error_message or "").startswith(f"{spoilt} {says}")


def test_the_upload_of_another_tenant_is_not_read(bench: Bench, make_job: MakeJob) -> None:
    image = bench.upload(picture())
    bench.jobs.insert(job := make_job(strength=0.5, init_image=image))
    with bench.database.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET tenant = 'other'"))
    bench.task.run(job.id)
    assert bench.jobs.get("other", job.id).error_code is ErrorCode.INVALID_INPUT


def test_a_message_that_comes_twice_runs_a_job_once(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(steps=2))
    for _ in range(2):
        bench.task.run(job.id)
    bench.task.run("job_that_never_was")
    assert bench.get(job.id).attempt == 1


def test_what_the_model_refuses_fails_with_its_code(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(prompt="star " * 200))
    bench.task.run(job.id)
    failed = bench.get(job.id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.INVALID_INPUT)
    assert "tokens" in (failed.error_message or "")
    assert "star" not in (failed.error_message or "")


def test_a_picture_that_cannot_be_written_fails_its_job_alone(
    bench: Bench, make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"determinism": "exact", "sampler": "ddpm", "steps": 3}
    bench.jobs.insert(before := make_job(**wanted))
    bench.task.run(before.id)
    save = Image.Image.save

    def fail_webp(image: Image.Image, file: io.BytesIO, kind: str, **options: object) -> None:
        if kind == "WEBP":
            raise OSError("a fault")
        save(image, file, kind, **options)

    monkeypatch.setattr(Image.Image, "save", fail_webp)
    faulty, neighbour = make_job(steps=3, output_format="webp"), make_job(**wanted)
    threads = []
    for job in (faulty, neighbour):
        bench.jobs.insert(job)
        threads.append(threading.Thread(target=bench.task.run, args=(job.id,)))
        threads[-1].start()
    for thread in threads:
        thread.join(timeout=60)
    failed = bench.get(faulty.id)
    assert (failed.status, failed.error_code) == (JobStatus.FAILED, ErrorCode.INTERNAL)
    assert (failed.error_message or "").startswith(
        "the picture could not be written as webp; another output_format may work"
    )
    shas = [bench.get(job.id).artifacts[0].sha256 for job in (before, neighbour)]
    assert shas[0] == shas[1]


def test_a_job_whose_owner_cancels_ends_canceled(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(sampler="ddpm", steps=1000))
    thread = bench.run_beside(job.id)
    bench.jobs.request_cancel("tenant", job.id)
    bench.keeper.beat()
    thread.join(timeout=20)
    assert bench.get(job.id).status is JobStatus.CANCELED


def test_a_worker_that_drains_hands_its_job_back(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(sampler="ddpm", steps=1000))
    thread = bench.run_beside(job.id)
    bench.engine.drain()
    thread.join(timeout=20)
    back = bench.get(job.id)
    assert (back.status, back.attempt, back.iteration) == (JobStatus.QUEUED, 1, 0)


def test_a_message_that_comes_while_the_worker_leaves_is_left_to_others(
    bench: Bench, make_job: MakeJob
) -> None:
    bench.jobs.insert(job := make_job(steps=2))
    dispatch = DispatchRepository(bench.database)
    assert [told.job_id for told in dispatch.pick(job.queue)] == [job.id]
    bench.task.drain()
    bench.task.run(job.id)
    assert (bench.get(job.id).status, bench.get(job.id).attempt) == (JobStatus.QUEUED, 0)
    assert [told.job_id for told in dispatch.pick(job.queue)] == [job.id]


def test_a_suspected_job_waits_for_the_others_to_end_and_runs_alone(
    bench: Bench, make_job: MakeJob
) -> None:
    bench.jobs.insert(neighbour := make_job(sampler="ddpm", steps=60))
    bench.jobs.insert(suspect := make_job(sampler="ddpm", steps=60))
    with bench.database.begin() as connection:
        connection.execute(
            sa.text("UPDATE jobs SET lost_leases = :lost WHERE id = :id"),
            {"lost": SUSPECTED_AFTER, "id": suspect.id},
        )
    threads = [bench.run_beside(neighbour.id)]
    threads.append(threading.Thread(target=bench.task.run, args=(suspect.id,)))
    threads[-1].start()
    wait_until(lambda: bench.get(suspect.id).status is JobStatus.RUNNING)
    bench.jobs.insert(latecomer := make_job(steps=2))
    threads.append(threading.Thread(target=bench.task.run, args=(latecomer.id,)))
    threads[-1].start()
    for thread in threads:
        thread.join(timeout=60)
    ended = [bench.get(job.id) for job in (neighbour, suspect, latecomer)]
    assert {job.status for job in ended} == {JobStatus.SUCCEEDED}
    with bench.database.connect() as connection:
        query = sa.text("SELECT job_id, is_alone FROM attempts ORDER BY ended_at")
        told = [tuple(row) for row in connection.execute(query)]
    assert told == [(neighbour.id, False), (suspect.id, True), (latecomer.id, False)]
    # Two rows are its own: nobody shared a forward with it.
    assert [job.execution and job.execution["mean_rows"] for job in ended] == [2.0] * 3


def test_who_waits_to_run_alone_holds_no_lease_that_the_one_before_could_cost(
    bench: Bench, make_job: MakeJob
) -> None:
    suspects = [make_job(sampler="ddpm", steps=100) for _ in range(2)]
    for suspect in suspects:
        bench.jobs.insert(suspect)
    with bench.database.begin() as connection:
        connection.execute(sa.text("UPDATE jobs SET lost_leases = :n"), {"n": SUSPECTED_AFTER})
    threads = [threading.Thread(target=bench.task.run, args=(job.id,)) for job in suspects]
    for thread in threads:
        thread.start()

    def seen() -> dict[JobStatus, int]:
        jobs = [bench.get(suspect.id) for suspect in suspects]
        return {job.status: job.attempt for job in jobs}

    wait_until(lambda: JobStatus.RUNNING in seen())
    assert seen() == {JobStatus.RUNNING: 1, JobStatus.QUEUED: 0}
    for thread in threads:
        thread.join(timeout=60)
    assert seen() == {JobStatus.SUCCEEDED: 1}


def test_a_result_without_a_lease_is_thrown_away(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(sampler="ddpm", steps=100))
    thread = bench.run_beside(job.id)
    bench.expire_leases()  # the worker does not know
    other = bench.leases.claim(job.id, worker="other")
    assert other is not None
    thread.join(timeout=60)
    now = bench.get(job.id)
    assert (now.status, now.attempt, now.artifacts) == (JobStatus.RUNNING, 2, ())


def test_a_job_stops_when_its_worker_learns_that_the_lease_is_gone(
    bench: Bench, make_job: MakeJob
) -> None:
    bench.jobs.insert(job := make_job(sampler="ddpm", steps=1000))
    thread = bench.run_beside(job.id)
    bench.expire_leases()
    bench.keeper.beat()
    thread.join(timeout=20)
    back = bench.get(job.id)
    assert (back.status, back.attempt) == (JobStatus.QUEUED, 1)
