"""A job of a model of sounds from claim to finish, with the real engine, database and store."""

import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
import soundfile
import sqlalchemy as sa
from PIL import Image

from cli.standalone.servers import Servers
from shared.catalog import Catalog
from shared.job import JobStatus, NewJob
from shared.job_body import JobRenderer
from tests.worker.conftest import Bench
from worker.engine import ModelCache

MakeJob = Callable[..., NewJob]
SOUND = {
    "prompt": "two low clicks",
    "model": "tiny",
    "queue": "tiny.interactive",
    "sampler": "edm_dpmpp_2m",
    "guidance": 4.0,
    "width": None,
    "height": None,
    "duration_s": 0.25,
}


@pytest.fixture(scope="module")
def sound_models(sound_catalog: Catalog) -> ModelCache:
    models = ModelCache(sound_catalog, "cpu")
    for model_id in ("demo", "tiny"):
        models.load(model_id)
    return models


@pytest.fixture
def bench(
    database: sa.Engine, servers: Servers, sound_models: ModelCache, sound_catalog_file: Path
) -> Iterator[Bench]:
    bench = Bench(database, servers, sound_models, catalog=sound_catalog_file)
    bench.start()
    yield bench
    bench.stop()


@pytest.mark.parametrize("output_format", ["wav", "flac"])
def test_a_job_ends_with_sounds_and_their_pictures_behind_its_links(
    bench: Bench, make_job: MakeJob, output_format: str
) -> None:
    bench.jobs.insert(job := make_job(**SOUND, num_outputs=2, output_format=output_format))
    bench.task.run(job.id)
    done = bench.get(job.id)
    assert done.status is JobStatus.SUCCEEDED, done.error_message
    shown = JobRenderer(bench.store, 600, lambda: datetime.now(UTC)).render(done)
    assert (shown.request.width, shown.request.height) == (None, None)
    assert shown.request.duration_s == 0.25
    assert shown.execution is not None
    assert shown.execution.gains is not None
    assert len(shown.execution.gains) == len(shown.artifacts) == 2
    for artifact in shown.artifacts:
        assert (artifact.width, artifact.height) == (None, None)
        assert (artifact.duration_s, artifact.sample_rate) == (0.25, 4_000)
        assert artifact.content_type == f"audio/{output_format}"
        answer = httpx.get(artifact.url).raise_for_status()
        assert answer.headers["Content-Type"] == artifact.content_type
        with soundfile.SoundFile(io.BytesIO(answer.content)) as opened:
            assert (opened.frames, opened.channels, opened.samplerate) == (1_000, 2, 4_000)
        assert artifact.thumbnail_url is not None
        answer = httpx.get(artifact.thumbnail_url).raise_for_status()
        assert answer.headers["Content-Type"] == "image/webp"
        assert Image.open(io.BytesIO(answer.content)).size == (256, 256)


def test_a_small_picture_is_its_own_thumbnail(bench: Bench, make_job: MakeJob) -> None:
    bench.jobs.insert(job := make_job(steps=1))
    bench.task.run(job.id)
    (artifact,) = bench.get(job.id).artifacts
    assert artifact.thumbnail_key == artifact.key
    assert (artifact.duration_s, artifact.sample_rate) == (None, None)


def test_equal_jobs_make_equal_files(bench: Bench, make_job: MakeJob) -> None:
    jobs = [make_job(**SOUND, determinism="exact", output_format="flac") for _ in range(2)]
    for job in jobs:
        bench.jobs.insert(job)
        bench.task.run(job.id)
    first, second = (bench.get(job.id).artifacts[0] for job in jobs)
    assert first.sha256 == second.sha256
