"""What is counted of requests, and what of them is never shown."""

from prometheus_client import CollectorRegistry, generate_latest

from api.metrics import ApiMetrics
from tests.fixtures.api import Api

CANARY = "canarykwyjibo"


def show(api: Api) -> str:
    return generate_latest(api.services.metrics.registry).decode()


def test_requests_refusals_and_jobs_are_counted(api: Api) -> None:
    job = api.submit(steps=4)
    api.client.post("/v1/jobs", json={"prompt": "x", "steps": 0})
    api.client.get(f"/v1/jobs/{job['id']}")
    api.client.post(f"/v1/jobs/{job['id']}/cancel")
    api.client.get("/v1/jobs/job_0")
    api.client.post("/v1/batches", json={"jobs": [{"prompt": "x"}, {"prompt": "y"}]})
    page = show(api)
    assert 'latentq_jobs_accepted_total{model="demo"} 3.0' in page
    assert 'latentq_cancel_requests_total{outcome="canceled"} 1.0' in page
    assert 'latentq_refusals_total{code="invalid_request"} 1.0' in page
    assert 'latentq_refusals_total{code="not_found"} 1.0' in page
    jobs = 'latentq_http_requests_total{method="POST",route="/v1/jobs",status="%d"} 1.0'
    assert jobs % 202 in page
    assert jobs % 422 in page
    one = 'latentq_http_request_seconds_count{method="GET",route="/v1/jobs/{job_id}"} 2.0'
    assert one in page


def test_nothing_that_a_caller_writes_becomes_a_label(api: Api) -> None:
    api.submit(prompt=CANARY, metadata={CANARY: CANARY})
    api.client.get(f"/{CANARY}")
    api.client.get(f"/v1/jobs/{CANARY}?{CANARY}={CANARY}")
    api.client.request(CANARY, "/v1/jobs")
    api.client.post("/v1/jobs", json={"prompt": CANARY, "model": CANARY, "preset": CANARY})
    page = show(api)
    assert CANARY not in page.lower()
    assert 'route="none"' in page
    assert 'method="other"' in page


def test_who_waits_is_shown() -> None:
    metrics = ApiMetrics(CollectorRegistry())
    metrics.show_waiting(lambda: 3)
    assert metrics.registry.get_sample_value("latentq_requests_waiting") == 3
