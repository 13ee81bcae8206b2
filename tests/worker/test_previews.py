import queue
from functools import partial

from cli.standalone.servers import Servers
from shared.preview import Preview
from shared.queue import WATCH_S, JobQueue, PreviewFeed, WorkerListener
from shared.request import GenerationRequest
from tests.fixtures.stack import free_port
from worker.engine import Engine, EngineConfig, ModelCache
from worker.main import show_preview

PATIENCE_S = 60


def request(steps: int) -> GenerationRequest:
    return GenerationRequest(
        prompt="a red star",
        model="demo",
        sampler="ddpm",
        schedule="native",
        steps=steps,
        guidance=2,
        seed=1,
        width=64,
        height=64,
        num_outputs=2,
    )


def test_previews_of_a_running_job_reach_who_watches_it(
    servers: Servers, models: ModelCache
) -> None:
    engine = Engine(
        EngineConfig(), models, on_preview=partial(show_preview, JobQueue(servers.redis_url))
    )
    listener = WorkerListener(
        servers.redis_url, on_cancel=engine.cancel, on_watch=partial(engine.watch, for_s=WATCH_S)
    )
    feed = PreviewFeed(servers.redis_url)
    seen: queue.Queue[Preview] = queue.Queue()
    engine.start()
    listener.start()
    try:
        job = engine.submit("job_watched", request(steps=1000))
        other = engine.submit("job_other", request(steps=1000))
        with feed.watch("job_watched", seen.put):
            previews = [seen.get(timeout=PATIENCE_S) for _ in range(3)]
        for job_id in ("job_watched", "job_other"):
            engine.cancel(job_id)
        assert {preview.job_id for preview in previews} == {"job_watched"}
        assert [preview.output_index for preview in previews] in ([0, 1, 0], [1, 0, 1])
        iterations = [preview.iteration for preview in previews]
        assert iterations == sorted(set(iterations))
        assert job.exception(PATIENCE_S) is not None
        assert other.exception(PATIENCE_S) is not None
    finally:
        listener.stop()
        engine.stop()


def test_a_job_ends_well_while_redis_is_away(models: ModelCache) -> None:
    away = JobQueue(f"redis://127.0.0.1:{free_port()}/0")
    engine = Engine(EngineConfig(), models, on_preview=partial(show_preview, away))
    engine.watch("job", for_s=WATCH_S)
    engine.start()
    try:
        assert len(engine.submit("job", request(steps=4)).result(PATIENCE_S).outputs) == 2
    finally:
        engine.stop()
