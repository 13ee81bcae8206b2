"""Jobs that make sounds: what they may ask for, what they get by default, what is refused."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import soundfile

from api.tokens import TokenCounter
from cli.standalone.servers import Servers
from latentq_client import Client
from shared.access import KeyLimits, KeyTerms
from shared.catalog import Catalog
from tests.fixtures.api import Api
from tests.fixtures.served import Live
from tests.worker.conftest import Bench
from worker.engine import ModelCache


@pytest.fixture(scope="session")
def catalog(sound_catalog: Catalog) -> Catalog:
    return sound_catalog


@pytest.fixture(scope="session")
def tokens(catalog: Catalog) -> TokenCounter:
    return TokenCounter(catalog)


def refuse(api: Api, **body: Any) -> dict[str, str]:
    answer = api.client.post("/v1/jobs", json={"prompt": "a high tone", "model": "tiny"} | body)
    assert answer.status_code == 422, answer.text
    return {error["pointer"]: error["detail"] for error in answer.json()["errors"]}


def test_a_sound_has_a_duration_and_no_size(api: Api) -> None:
    job = api.submit(model="tiny")
    request = job["request"]
    assert (request["width"], request["height"]) == (None, None)
    assert (request["duration_s"], request["output_format"]) == (1.024, "wav")
    chosen = api.submit(model="tiny", duration_s=0.5, output_format="flac")["request"]
    assert (chosen["duration_s"], chosen["output_format"]) == (0.5, "flac")
    limited = api.submit(model="angled")["request"]
    assert limited["duration_s"] == 0.25


def test_a_resolved_request_sent_again_makes_an_equal_job(api: Api) -> None:
    request = api.submit(model="tiny", duration_s=0.5)["request"]
    assert api.submit(**request)["request"] == request


@pytest.mark.parametrize(
    ("preset", "guidance", "steps"),
    [
        ("balanced", 4, 25),
        ("creative", 3, 40),
        ("precise", 5, 40),
        ("fast", 4, 12),
        ("reference", 4, 50),
    ],
)
def test_presets_resolve_to_what_suits_sounds(
    api: Api, preset: str, guidance: float, steps: int
) -> None:
    request = api.submit(model="tiny", preset=preset)["request"]
    assert (request["sampler"], request["schedule"]) == ("edm_dpmpp_2m", "native")
    assert (request["guidance"], request["steps"]) == (guidance, steps)


def test_its_cost_counts_seconds_as_pixels(api: Api) -> None:
    job = api.submit(model="tiny", duration_s=0.5, steps=10, num_outputs=2)
    assert job["cost"]["megapixel_iterations"] == pytest.approx(0.5 * 44_100 * 20 / 1e6)


@pytest.mark.parametrize(
    ("body", "pointer", "detail"),
    [
        ({"width": 64}, "#/width", "tiny makes sounds, which have a duration_s and no width"),
        ({"height": 64}, "#/height", "and no height"),
        ({"duration_s": 1.03}, "#/duration_s", "tiny makes 0.008 to 1.024 seconds"),
        ({"duration_s": 0.001}, "#/duration_s", "tiny makes 0.008 to 1.024 seconds"),
        ({"model": "angled", "duration_s": 0.6}, "#/duration_s", "to 0.5 seconds"),
        ({"output_format": "png"}, "#/output_format", "tiny makes audio files: wav, flac"),
        ({"sampler": "euler"}, "#/sampler", "edm_dpmpp_2m can"),
        ({"schedule": "cosine"}, "#/schedule", "edm_dpmpp_2m on the native schedule can"),
        ({"steps": 1}, "#/steps", "at least 2 steps"),
        ({"model": "demo", "output_format": "wav"}, "#/output_format", "png, webp, jpeg"),
        ({"model": "demo", "duration_s": 1.0}, "#/duration_s", "only audio models"),
        ({"duration_s": 0}, "#/duration_s", "greater than 0"),
        ({"duration_s": "1"}, "#/duration_s", "valid number"),
        ({"prompt": "tone " * 16}, "#/prompt", "17 tokens"),
    ],
)
def test_what_a_model_of_sounds_does_not_make_is_refused_with_what_it_does(
    api: Api, body: dict[str, Any], pointer: str, detail: str
) -> None:
    found = refuse(api, **body)
    assert detail in found[pointer]
    assert api.count_jobs() == 0


def test_a_key_may_be_limited_to_short_sounds(api: Api) -> None:
    client = api.new_client(terms=KeyTerms(limits=KeyLimits(max_duration_s=0.5, max_width=8)))
    body = {"prompt": "a high tone", "model": "tiny"}
    assert client.post("/v1/jobs", json=body | {"duration_s": 0.5}).status_code == 202
    refused = client.post("/v1/jobs", json=body)
    assert (refused.status_code, refused.json()["code"]) == (403, "over_key_limit")
    assert refused.json()["errors"][0]["pointer"] == "#/duration_s"


def test_models_say_what_they_make(api: Api) -> None:
    models = {model["id"]: model for model in api.client.get("/v1/models").json()["data"]}
    tiny, demo = models["tiny"], models["demo"]
    assert (tiny["medium"], tiny["process"], tiny["prediction_type"]) == (
        "audio",
        "edm",
        "v_prediction",
    )
    names = ("width", "height", "max_width", "max_height")
    assert [tiny[name] for name in names] == [None] * 4
    assert (tiny["sample_rate"], tiny["duration_s"], tiny["max_duration_s"]) == (4000, 1.024, 1.024)
    assert (tiny["output_formats"], tiny["max_tokens"]) == (["wav", "flac"], 16)
    assert (demo["duration_s"], demo["sample_rate"], demo["width"]) == (None, None, 64)


def test_the_table_of_samplers_has_one_for_it(api: Api) -> None:
    cells = api.client.get("/v1/samplers", params={"model": "tiny"}).json()["data"]
    works = [(cell["sampler"], cell["schedule"]) for cell in cells if cell["supported"]]
    assert works == [("edm_dpmpp_2m", name) for name in ("native", "karras", "exponential")]
    assert {cell["instead"] for cell in cells if not cell["supported"]} == {"edm_dpmpp_2m"}


def test_the_images_api_refuses_it_and_says_where_it_is_taken(api: Api) -> None:
    body = {"prompt": "a high tone", "model": "tiny"}
    answer = api.client.post("/openai/v1/images/generations", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "#/model"
    assert "POST /v1/jobs" in error["detail"]
    assert api.count_jobs() == 0


def test_a_prediction_may_be_a_sound(api: Api) -> None:
    path = "/replicate/v1/models/latentq/tiny/predictions"
    answer = api.client.post(path, json={"input": {"prompt": "a high tone", "duration_s": 0.5}})
    assert answer.status_code == 201, answer.text
    shown = answer.json()["input"]
    assert shown["duration_s"] == 0.5
    assert "width" not in shown


def test_a_preset_of_ones_own_may_settle_a_duration(api: Api) -> None:
    body = {"model": "tiny", "duration_s": 0.5, "output_format": "flac"}
    assert api.client.put("/v1/presets/short", json=body).status_code in (200, 201)
    request = api.submit(preset="short")["request"]
    assert (request["model"], request["duration_s"], request["output_format"]) == (
        "tiny",
        0.5,
        "flac",
    )


@pytest.fixture
def bench(
    live: Live, servers: Servers, catalog: Catalog, sound_catalog_file: Path
) -> Iterator[Bench]:
    """A worker's inside beside the served API."""
    models = ModelCache(catalog, "cpu")
    models.load("tiny")
    bench = Bench(live.api.database, servers, models, catalog=sound_catalog_file)
    bench.start()
    yield bench
    bench.stop()


@pytest.mark.parametrize("output_format", ["wav", "flac"])
def test_a_job_over_http_makes_a_file_that_a_library_reads(
    live: Live, bench: Bench, tmp_path: Path, output_format: str
) -> None:
    with Client(live.url, live.key) as client:
        job = client.submit(
            "two low clicks", model="tiny", duration_s=0.5, output_format=output_format
        )
        bench.task.run(job.id)
        job.refresh()
        assert job.status == "succeeded", job.error
        (saved,) = job.save(tmp_path)
        (made,) = job.artifacts
        look = client.download(made, thumbnail=True)
    assert saved.name == f"{job.id}-0.{output_format}"
    with soundfile.SoundFile(saved) as opened:
        assert opened.format == output_format.upper()
        assert (opened.frames, opened.samplerate) == (2_000, made.sample_rate)
        assert json.loads(opened.comment)["request"]["prompt"] == "two low clicks"
    assert (made.is_sound, made.duration_s, made.width) == (True, 0.5, None)
    assert look[8:12] == b"WEBP"
