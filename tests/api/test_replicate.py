"""Replicate's own SDK, as it comes, against the API."""

import hashlib
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from replicate.client import Client
from replicate.exceptions import ModelError, ReplicateError
from replicate.version import Versions

from api.main import create_app
from shared.errors import NonFinite
from shared.webhook import EventType
from tests.fixtures.pictures import picture
from tests.fixtures.served import Live, serve
from tests.fixtures.stack import wait_until

PICTURE = b"\x89PNG\r\n\x1a\n and so on"
INPUT = {"prompt": "a red star"}
RECEIVER = "https://hooks.example.test/"
REVISION = "demo:3"
TIMEOUT_S = 10.0


def be_patient(request: httpx.Request) -> None:
    """Hear an answer that a full machine holds longer than the half second that the SDK grants."""
    request.extensions["timeout"]["read"] = TIMEOUT_S


@contextmanager
def connect(url: str, key: str) -> Iterator[Client]:
    """Make a client, and close the connections that it never closes itself."""
    client = Client(
        api_token=key,
        base_url=f"{url}/replicate",
        timeout=TIMEOUT_S,
        event_hooks={"request": [be_patient]},
    )
    with client._client:
        yield client


@pytest.fixture
def client(live: Live) -> Iterator[Client]:
    with connect(live.url, live.key) as client:
        yield client


@pytest.fixture
def calls() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as pool:
        yield pool


@pytest.fixture(autouse=True)
def _poll_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REPLICATE_POLL_INTERVAL", "0.05")


def request_of(live: Live, job_id: str) -> Any:
    return live.api.services.jobs.get("tenant", job_id).request


def test_a_model_runs(live: Live, client: Client, calls: ThreadPoolExecutor) -> None:
    given = INPUT | {"num_inference_steps": 4, "guidance_scale": 2.5, "seed": 7, "num_outputs": 2}
    answer = calls.submit(client.run, "anybody/demo", input=given)
    lease = live.start(live.find_job())
    live.succeed(lease, PICTURE, PICTURE)
    output = answer.result(10)
    assert [httpx.get(url).content for url in output] == [PICTURE] * 2
    request = request_of(live, lease.job_id)
    assert (request.steps, request.guidance, request.seed, request.num_outputs) == (4, 2.5, 7, 2)


def test_a_version_runs(live: Live, client: Client, calls: ThreadPoolExecutor) -> None:
    answer = calls.submit(client.run, "anybody/demo:3", input=INPUT)
    live.succeed(live.start(live.find_job()), PICTURE)
    (url,) = answer.result(10)
    assert httpx.get(url).content == PICTURE


def test_a_run_that_takes_longer_than_its_wait_is_polled_to_its_end(
    live: Live, client: Client, calls: ThreadPoolExecutor
) -> None:
    answer = calls.submit(client.run, "anybody/demo:3", input=INPUT, wait=1)
    lease = live.start(live.find_job())
    # It runs while the wait runs out: any status but `starting` would be taken for the end.
    wait_until(lambda: 201 in live.statuses, timeout_s=TIMEOUT_S)
    live.succeed(lease, PICTURE)
    (url,) = answer.result(TIMEOUT_S)
    assert httpx.get(url).content == PICTURE
    assert live.api.count_jobs() == 1


def test_a_prediction_lives(live: Live, client: Client) -> None:
    made = client.predictions.create(version=REVISION, input=INPUT | {"frobnicate": 1})
    assert (made.status, made.model, made.version) == ("starting", "latentq/demo", "3")
    assert (made.output, made.logs, made.progress) == (None, "", None)
    assert made.input["prompt"] == "a red star"
    lease = live.start(made.id)
    live.beat(lease, 2)
    made.reload()
    assert made.status == "processing"
    iterations = request_of(live, made.id).iterations
    assert (made.progress.current, made.progress.total) == (2, iterations)
    live.succeed(lease, PICTURE)
    made.wait()
    assert made.status == "succeeded"
    assert made.metrics["predict_time"] >= 0
    assert made.completed_at is not None


def test_warnings_tell_what_had_no_effect(live: Live) -> None:
    body = {"input": INPUT | {"frobnicate": 1}, "version": "3", "colour": "red"}
    made = post(live, "/predictions", json=body)
    assert made.status_code == 201
    assert [warning.split()[0] for warning in made.json()["warnings"]] == ["frobnicate", "colour"]


def post(live: Live, path: str, **arguments: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {live.key}"} | arguments.pop("headers", {})
    return httpx.post(f"{live.url}/replicate/v1{path}", headers=headers, **arguments)


def test_a_failure_is_a_model_error(live: Live, client: Client, calls: ThreadPoolExecutor) -> None:
    answer = calls.submit(client.run, "anybody/demo", input=INPUT)
    live.fail(live.start(live.find_job()), NonFinite("not finite"))
    with pytest.raises(ModelError, match="non_finite: not finite"):
        answer.result(10)


def test_what_never_began_before_its_deadline_is_canceled(live: Live, client: Client) -> None:
    headers = {"Cancel-After": "1m"}
    made = post(live, "/predictions", json={"input": INPUT, "version": "3"}, headers=headers)
    job_id = made.json()["id"]
    assert request_of(live, job_id).deadline_s == 60
    live.expire(job_id)
    ended = client.predictions.get(job_id)
    assert (ended.status, ended.error[:17]) == ("canceled", "deadline_exceeded")


def test_a_prediction_is_canceled(live: Live, client: Client) -> None:
    made = client.predictions.create(version="3", input=INPUT)
    made.cancel()
    assert made.status == "canceled"
    assert client.predictions.cancel(made.id).status == "canceled"
    running = client.predictions.create(version="3", input=INPUT)
    live.start(running.id)
    running.cancel()
    assert running.status == "processing"
    assert live.api.canceled == [running.id]


def test_predictions_are_listed_page_by_page(live: Live, client: Client) -> None:
    made = [client.predictions.create(version="3", input=INPUT).id for _ in range(3)]
    url = f"{live.url}/replicate/v1/predictions?limit=2"
    first = client.predictions.list(url)
    second = client.predictions.list(first.next)
    assert [found.id for found in (*first, *second)] == made[::-1]
    assert (first.previous, second.next) == (None, None)
    assert len(client.predictions.list()) == 3


def test_refusals_name_what_was_sent(live: Live, client: Client) -> None:
    cases = [
        ({"version": "9"}, "version"),
        ({"input": INPUT | {"num_outputs": 9}}, "input/num_outputs"),
        ({"input": INPUT | {"num_inference_steps": 0}}, "input/num_inference_steps"),
        ({"input": INPUT | {"steps": 3, "num_inference_steps": 4}}, "input/num_inference_steps"),
        ({"input": {}}, "input/prompt"),
        ({"input": INPUT | {"model": "other"}}, "input/model"),
        ({"input": INPUT | {"image": "https://example.test/a.png"}}, "input/image"),
        ({"input": INPUT | {"image": "data:image/png;base64,?"}}, "input/image"),
        ({"webhook": "https://10.0.0.1/"}, "webhook/url"),
        ({"webhook": RECEIVER, "webhook_events_filter": ["logs"]}, "webhook_events_filter"),
        ({"webhook_events_filter": ["none"]}, "webhook_events_filter/0"),
        ({"webhook": RECEIVER, "webhook_completed": RECEIVER}, "webhook_completed"),
    ]  # fmt: skip
    for changes, param in cases:
        answer = post(live, "/predictions", json={"version": "3", "input": INPUT} | changes)
        assert answer.status_code == 422, answer.text
        assert answer.json()["error"]["param"] == param
    with pytest.raises(ReplicateError) as caught:
        client.predictions.create(version="9", input=INPUT)
    assert (caught.value.status, caught.value.type) == (422, "/problems/unknown-model")
    assert live.api.count_jobs() == 0


def test_what_is_not_served_is_not_found(live: Live, client: Client) -> None:
    missing = [
        lambda: client.run("anybody/none", input=INPUT),
        lambda: client.deployments.predictions.create("a/b", input=INPUT),
        lambda: client.predictions.get("none"),
        lambda: client.models.get("anybody/none"),
        lambda: Versions(client, "anybody/demo").get("9"),
        lambda: client.files.get("none"),
        client.hardware.list,
        client.collections.list,
        client.trainings.list,
        client.accounts.current,
    ]
    for call in missing:
        with pytest.raises(ReplicateError) as caught:
            call()
        assert (caught.value.status, caught.value.type) == (404, "/problems/not-found")


def test_a_model_says_what_it_takes(client: Client) -> None:
    model = client.models.get("anybody/demo")
    assert (model.owner, model.name, model.latest_version.id) == ("anybody", "demo", "3")
    version = model.versions.get("3")
    taken = version.openapi_schema["components"]["schemas"]["Input"]["properties"]
    assert {"prompt", "sampler", "steps"} <= taken.keys()


@pytest.mark.parametrize("strategy", ["url", "base64"])
def test_files_are_inputs(live: Live, client: Client, strategy: Any) -> None:
    image, mask = picture(), picture() + b"mask"
    made = client.predictions.create(
        version="3",
        input=INPUT
        | {"image": io.BytesIO(image), "mask": io.BytesIO(mask), "prompt_strength": 0.5},
        file_encoding_strategy=strategy,
    )
    request = request_of(live, made.id)
    assert request.init_image.sha256 == hashlib.sha256(image).hexdigest()
    assert request.mask.sha256 == hashlib.sha256(mask).hexdigest()
    assert request.strength == 0.5


def test_a_file_is_described(client: Client) -> None:
    data = picture()
    made = client.files.create(io.BytesIO(data), filename="a.png", metadata={"a": 1})
    assert client.files.get(made.id) == made
    assert (made.size, made.checksums) == (len(data), {"sha256": hashlib.sha256(data).hexdigest()})


def test_a_prediction_is_streamed(live: Live, client: Client, calls: ThreadPoolExecutor) -> None:
    four_steps = INPUT | {"num_inference_steps": 4}
    events = calls.submit(lambda: list(client.stream("anybody/demo", input=four_steps)))
    lease = live.start(live.find_job())
    live.beat(lease, 1)
    live.succeed(lease, PICTURE)
    told = events.result(10)
    assert [event.event.value for event in told if event.event.value != "logs"] == [
        "output",
        "done",
    ]
    (output,) = [event.data for event in told if event.event.value == "output"]
    assert httpx.get(output).content == PICTURE
    assert [event.id for event in told] == [str(n + 1) for n in range(len(told))]
    assert "100%|##########|" in [e.data for e in told if e.event.value == "logs"][-1]


def test_a_stream_tells_of_failure(live: Live, client: Client, calls: ThreadPoolExecutor) -> None:
    made = client.predictions.create(version="3", input=INPUT)
    live.fail(live.start(made.id), NonFinite("not finite"))
    made.reload()
    with pytest.raises(RuntimeError, match="not finite"):
        list(made.stream())


def test_a_prediction_of_others_is_not_found(live: Live, client: Client) -> None:
    made = client.predictions.create(version="3", input=INPUT)
    with live.api.new_client(tenant="other") as stranger:
        for method, rest in (("GET", ""), ("POST", "/cancel"), ("GET", "/stream")):
            path = f"/replicate/v1/predictions/{made.id}{rest}"
            assert stranger.request(method, path).status_code == 404


def test_a_webhook_is_told_of_what_it_asks_for(live: Live, client: Client) -> None:
    cases: list[tuple[Any, set[EventType]]] = [
        (None, set(EventType)),
        (["start"], {EventType.STARTED}),
        (["output", "logs"], {EventType.SUCCEEDED}),
        (["completed"], set(EventType) - {EventType.STARTED}),
    ]
    for wanted, events in cases:
        made = client.predictions.create(
            version="3",
            input=INPUT,
            webhook=RECEIVER,
            **({} if wanted is None else {"webhook_events_filter": wanted}),
        )
        webhook = live.api.services.jobs.get("tenant", made.id).webhook
        assert webhook is not None
        assert set(webhook.events) == events
        assert webhook.prediction is not None
        assert webhook.prediction.base_url == f"{live.url}/replicate/v1"


def test_the_surface_can_be_switched_off(live: Live) -> None:
    app = create_app(live.api.services, replicate=False)
    with (
        serve(app, []) as url,
        connect(url, live.key) as client,
        pytest.raises(ReplicateError, match="404"),
    ):
        client.run("anybody/demo", input=INPUT)
    assert live.api.count_jobs() == 0
