"""OpenAI's own SDK, as it comes, against the API."""

import base64
import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI

from api import problems
from api.main import create_app
from api.openai import pictures, routes
from cli.standalone.servers import Servers
from shared.catalog import Catalog
from shared.errors import InvalidInput, NonFinite
from shared.job import Artifact, Success
from shared.preview import Preview
from shared.queue import JobQueue
from tests.fixtures.served import EXECUTION, Live, serve
from tests.fixtures.stack import wait_until

PICTURE = b"\x89PNG\r\n\x1a\n and so on"


@pytest.fixture
def client(live: Live) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{live.url}/openai/v1", api_key=live.key) as client:
        yield client


@pytest.fixture
def calls() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


Generate = Callable[..., Future[Any]]


@pytest.fixture
def generate(client: OpenAI, calls: ThreadPoolExecutor) -> Generate:
    """Ask for pictures on another thread."""

    def call(**fields: Any) -> Future[Any]:
        return calls.submit(client.images.generate, **{"prompt": "a red star"} | fields)

    return call


def test_pictures_come_as_bytes(live: Live, generate: Generate) -> None:
    answer = generate(n=2, size="64x64", extra_body={"seed": 7, "num_inference_steps": 4})
    lease = live.start(live.find_job())
    live.succeed(lease, PICTURE, PICTURE + b"2")
    images = answer.result(10)
    made = [base64.b64decode(image.b64_json) for image in images.data]
    assert made == [PICTURE, PICTURE + b"2"]
    assert (images.output_format, images.size, images.job_id) == ("png", "64x64", lease.job_id)
    job = live.api.services.jobs.get("tenant", lease.job_id)
    request = job.request
    assert (request.num_outputs, request.width, request.seed, request.steps) == (2, 64, 7, 4)


def test_pictures_come_as_links(live: Live, generate: Generate) -> None:
    answer = generate(response_format="url")
    live.succeed(live.start(live.find_job()), PICTURE)
    (image,) = answer.result(10).data
    assert image.b64_json is None
    assert httpx.get(image.url).content == PICTURE


def test_what_is_not_served_is_ignored_and_told(live: Live, generate: Generate) -> None:
    answer = generate(
        quality="high",
        moderation="low",
        user="me",
        extra_body={"frobnicate": 1, "a prompt in the wrong place": 2, "guidance_scale": 0},
    )
    lease = live.start(live.find_job())
    live.succeed(lease, PICTURE)
    warnings = answer.result(10).warnings
    names = {"quality", "moderation", "user", "frobnicate", "1"}
    assert {warning.split()[0] for warning in warnings} == names
    assert live.api.services.jobs.get("tenant", lease.job_id).request.guidance == 1


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({"n": 9}, "n", "invalid_request"),
    ({"size": "65x64"}, "size", "invalid_request"),
    ({"size": "big"}, "size", "invalid_request"),
    ({"size": "64x64", "extra_body": {"width": 32}}, "width", "invalid_request"),
    ({"model": "dall-e-3"}, "model", "unknown_model"),
    ({"output_format": "gif"}, "output_format", "invalid_request"),
    ({"response_format": "file"}, "response_format", "invalid_request"),
    ({"response_format": "url", "stream": True}, "response_format", "invalid_request"),
    ({"prompt": "red " * 100}, "prompt", "prompt_too_long"),
    ({"extra_body": {"num_inference_steps": 0}}, "num_inference_steps", "invalid_request"),
    (
        {"extra_body": {"num_inference_steps": 8, "steps": 9}},
        "steps",
        "invalid_request",
    ),
    ({"extra_body": {"seed": -1}}, "seed", "invalid_request"),
]


def test_what_contradicts_or_cannot_be_is_refused(live: Live, client: OpenAI) -> None:
    for fields, param, code in WRONG:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.images.generate(**{"prompt": "p"} | fields)
        assert (caught.value.param, caught.value.code) == (param, code)
        assert "job_id" not in caught.value.body
    assert live.api.count_jobs() == 0


def test_refusals_are_the_errors_that_clients_know(live: Live, client: OpenAI) -> None:
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="wrong").images.generate(prompt="p")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("none")
    with pytest.raises(openai.NotFoundError), pytest.deprecated_call():
        client.images.create_variation(image=PICTURE)
    with pytest.raises(openai.BadRequestError):
        client.images.generate(prompt="p", extra_headers={"Idempotency-Key": ""})


@pytest.mark.parametrize(
    ("error", "expected", "code"),
    [
        (NonFinite("not finite"), openai.InternalServerError, "job_failed"),
        (InvalidInput("mask is damaged"), openai.UnprocessableEntityError, "unusable_input"),
    ],
)
def test_a_job_that_fails_is_not_made_again(
    live: Live, generate: Generate, error: Any, expected: type[openai.APIStatusError], code: str
) -> None:
    answer = generate()
    lease = live.start(live.find_job())
    live.fail(lease, error)
    with pytest.raises(expected) as caught:
        answer.result(10)
    check_error(live, caught.value, lease.job_id, code)


def check_error(live: Live, error: openai.APIStatusError, job_id: str, code: str) -> None:
    assert (error.code, error.body["job_id"]) == (code, job_id)
    assert error.response.headers["Location"] == f"/v1/jobs/{job_id}"
    assert error.response.headers["x-should-retry"] == "false"
    # A second attempt would have been made by now.
    assert live.statuses == [error.status_code]
    assert live.api.count_jobs() == 1


def test_a_job_that_is_canceled_is_not_made_again(live: Live, generate: Generate) -> None:
    answer = generate()
    job_id = live.find_job()
    live.api.services.jobs.request_cancel("tenant", job_id)
    with pytest.raises(openai.ConflictError) as caught:
        answer.result(10)
    check_error(live, caught.value, job_id, "job_canceled")


def test_a_job_that_takes_too_long_goes_on(
    live: Live, generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(routes, "MAX_WAIT_S", 0.2)
    answer = generate()
    job_id = live.find_job()
    with pytest.raises(openai.InternalServerError) as caught:
        answer.result(10)
    assert caught.value.status_code == 504
    check_error(live, caught.value, job_id, "timeout")
    assert live.status(job_id) == "queued"


def test_a_store_that_is_away_makes_no_second_job(live: Live, generate: Generate) -> None:
    answer = generate()
    lease = live.start(live.find_job())
    key = "results/none/1-00000000-0000-0000-0000-000000000000/0.png"
    gone = Artifact(0, key, "image/png", 64, 64, 7, "ab" * 32, 1)
    assert live.leases.succeed(lease, Success((gone,), iterations=4, execution=EXECUTION))
    with pytest.raises(openai.APIStatusError) as caught:
        answer.result(10)
    assert caught.value.body["job_id"] == lease.job_id
    assert live.api.count_jobs() == 1


def test_a_request_is_sent_again_while_no_job_was_made(
    live: Live, generate: Generate, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub = live.api.services.hub
    monkeypatch.setattr(hub, "_max_watches", 0)
    monkeypatch.setattr(problems, "RETRY_AFTER_S", 1)
    answer = generate()
    wait_until(lambda: 503 in live.statuses)
    monkeypatch.setattr(hub, "_max_watches", 10)
    live.succeed(live.start(live.find_job()), PICTURE)
    assert answer.result(10).data
    assert live.api.count_jobs() == 1


def test_a_key_answers_the_same_job(live: Live, generate: Generate) -> None:
    answers = [generate(extra_headers={"Idempotency-Key": "k"}) for _ in range(3)]
    live.succeed(live.start(live.find_job()), PICTURE)
    assert len({answer.result(10).job_id for answer in answers}) == 1
    assert live.api.count_jobs() == 1


def test_a_client_that_goes_away_cancels_its_job(live: Live, client: OpenAI) -> None:
    impatient = client.with_options(timeout=0.5, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        impatient.images.generate(prompt="p")
    job_id = live.find_only_job()
    wait_until(lambda: live.status(job_id) == "canceled")


def test_a_client_that_goes_away_comes_back_for_its_job_by_its_key(
    live: Live, client: OpenAI, generate: Generate
) -> None:
    key = {"Idempotency-Key": "k"}
    impatient = client.with_options(timeout=0.5, max_retries=0)
    with pytest.raises(openai.APITimeoutError):
        impatient.images.generate(prompt="a red star", extra_headers=key)
    wait_until(lambda: live.api.services.hub.num_watches == 0)
    answer = generate(extra_headers=key)
    lease = live.start(live.find_job())
    live.succeed(lease, PICTURE)
    assert answer.result(10).job_id == lease.job_id
    assert live.api.count_jobs() == 1


def test_pictures_are_streamed(live: Live, generate: Generate, calls: ThreadPoolExecutor) -> None:
    events = calls.submit(lambda: list(generate(n=2, stream=True).result(10)))
    lease = live.start(live.find_job())
    live.succeed(lease, PICTURE, PICTURE)
    made = events.result(10)
    assert [event.type for event in made] == ["image_generation.completed"] * 2
    assert [base64.b64decode(event.b64_json) for event in made] == [PICTURE] * 2
    assert [event.index for event in made] == [0, 1]
    assert made[0].job_id == lease.job_id


def test_partial_pictures_are_spread_over_the_job(
    live: Live, generate: Generate, calls: ThreadPoolExecutor, servers: Servers
) -> None:
    body = {"num_inference_steps": 8}
    stream = generate(stream=True, partial_images=3, extra_body=body)
    lease = live.start(live.find_job())
    told = stream.result(10)
    queue = JobQueue(servers.redis_url)
    num_steps = live.api.services.jobs.get("tenant", lease.job_id).request.iterations
    seen: list[Any] = []

    def publish(iteration: int) -> bool:
        queue.publish_preview(Preview(lease.job_id, 0, iteration, b"picture %d" % iteration))
        return bool(seen)

    reading = calls.submit(lambda: seen.extend([next(told)]))
    wait_until(lambda: publish(num_steps // 2), timeout_s=10)
    reading.result(10)
    live.succeed(lease, PICTURE)
    rest = [event for event in told if event.type == "image_generation.completed"]
    assert len(rest) == 1
    (partial,) = seen
    assert (partial.type, partial.partial_image_index) == ("image_generation.partial_image", 0)
    assert base64.b64decode(partial.b64_json) == b"picture %d" % (num_steps // 2)


def test_partial_pictures_are_chosen_by_how_far_the_job_is(live: Live) -> None:
    job = live.api.submit(steps=8, sampler="ddim", num_outputs=2)
    read = live.api.services.jobs.get("tenant", job["id"])
    partials = pictures.Partials(3)
    taken = [n for n in range(1, 9) if partials.take(read, Preview(job["id"], 0, n, b"p"))]
    assert taken == [2, 4, 6]
    assert not partials.are_wanted


def test_a_stream_tells_of_failure(live: Live, generate: Generate, monkeypatch: Any) -> None:
    monkeypatch.setattr(pictures, "PING_S", 0.05)
    stream = generate(stream=True)
    lease = live.start(live.find_job())
    live.fail(lease, NonFinite("not finite"))
    with pytest.raises(openai.APIError, match="non_finite: not finite") as caught:
        list(stream.result(10))
    assert (caught.value.code, caught.value.body["job_id"]) == ("job_failed", lease.job_id)


def test_a_stream_whose_client_goes_away_cancels_its_job(live: Live, generate: Generate) -> None:
    stream = generate(stream=True).result(10)
    job_id = live.find_only_job()
    assert live.status(job_id) == "queued"
    stream.close()
    wait_until(lambda: live.status(job_id) == "canceled")


def test_an_edit_starts_from_a_picture(
    live: Live, client: OpenAI, calls: ThreadPoolExecutor
) -> None:
    answer = calls.submit(
        client.images.edit,
        image=("a.png", PICTURE),
        mask=("m.png", PICTURE + b"mask"),
        prompt="p",
        n=2,
        size="64x64",
        extra_body={"strength": 0.5, "seed": 3},
    )
    lease = live.start(live.find_job())
    live.succeed(lease, PICTURE, PICTURE)
    assert len(answer.result(10).data) == 2
    request = live.api.services.jobs.get("tenant", lease.job_id).request
    assert request.init_image is not None
    assert request.init_image.sha256 == hashlib.sha256(PICTURE).hexdigest()
    assert request.mask is not None
    assert (request.strength, request.seed, request.num_outputs) == (0.5, 3, 2)


def test_an_edit_is_refused_by_the_names_of_its_form(live: Live, client: OpenAI) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"image": [PICTURE, PICTURE]}, "image", "not_supported_yet"),
        ({"image": PICTURE, "n": 9}, "n", "invalid_request"),
        ({"image": PICTURE, "extra_body": {"strength": 2}}, "strength", "invalid_request"),
    ]
    for fields, param, code in cases:
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            client.images.edit(prompt="p", **fields)
        assert (caught.value.param, caught.value.code) == (param, code)
    with pytest.raises(openai.APIStatusError) as caught:
        client.images.edit(prompt="p", image=b"text")
    assert caught.value.code == "unsupported_image"
    assert live.api.count_jobs() == 0


def test_models_are_listed(client: OpenAI, catalog: Catalog) -> None:
    assert [model.id for model in client.models.list()] == list(catalog.models)
    assert client.models.retrieve("demo").owned_by == "latentq"


def test_the_surface_can_be_switched_off(live: Live) -> None:
    with serve(create_app(live.api.services, openai=False), []) as url:
        client = OpenAI(base_url=f"{url}/openai/v1", api_key=live.key)
        with client, pytest.raises(openai.NotFoundError):
            client.images.generate(prompt="p")
    assert live.api.count_jobs() == 0
