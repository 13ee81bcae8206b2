"""One trace from a caller's request to the receiver of its webhook, through every process."""

from tests.fixtures.collector import Collector, Span
from tests.fixtures.receiver import run_receiver
from tests.fixtures.stack import Stack, wait_until

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
#: Each span of the trace, the process that writes it, and the span that it is under.
EXPECTED = {
    "POST /v1/jobs": ("latentq-api", None),
    "submit": ("latentq-api", "POST /v1/jobs"),
    "queue wait": ("latentq-worker", "submit"),
    "attempt": ("latentq-worker", "submit"),
    "encode": ("latentq-worker", "attempt"),
    "denoise": ("latentq-worker", "attempt"),
    "decode": ("latentq-worker", "attempt"),
    "upload": ("latentq-worker", "attempt"),
    "S3 PutObject": ("latentq-worker", "upload"),
    "webhook": ("latentq-dispatcher", "submit"),
}


def test_one_trace_leads_through_all_processes(stack: Stack, collector: Collector) -> None:
    with run_receiver() as receiver:
        answer = stack.http.post(
            "/v1/jobs",
            json={"prompt": "a red star", "steps": 3, "webhook": {"url": receiver.url}},
            headers={"traceparent": f"00-{TRACE_ID}-{CALLER}-01"},
        )
        job_id = answer.json()["id"]

        def arrived() -> dict[str, Span] | None:
            spans = {span.name: span for span in collector.trace(TRACE_ID)}
            return spans if spans.keys() >= EXPECTED.keys() else None

        spans = wait_until(arrived, timeout_s=60)
    assert spans.keys() == EXPECTED.keys()
    for name, (service, parent) in EXPECTED.items():
        assert spans[name].service == service
        assert spans[name].parent_id == (CALLER if parent is None else spans[parent].span_id)
        assert not spans[name].is_error
    for name in ("submit", "queue wait", "attempt", "webhook"):
        assert spans[name].attributes["latentq.job_id"] == job_id
    assert spans["denoise"].attributes["latentq.iterations"] == 3
    assert spans["attempt"].attributes["latentq.outcome"] == "succeeded"
    order = ("submit", "attempt", "encode", "denoise", "decode", "upload", "webhook")
    began = [spans[name].began_ns for name in order]
    assert began == sorted(began)
    assert spans["decode"].ended_ns <= spans["attempt"].ended_ns


def test_what_goes_wrong_is_told_by_its_kind_alone(stack: Stack, collector: Collector) -> None:
    job = stack.submit(prompt="a red star", sampler="ddpm", steps=1000)
    stack.wait_for_progress([job["id"]])
    stack.http.post(f"/v1/jobs/{job['id']}/cancel")

    def ended() -> Span | None:
        of_job = [s for s in collector.spans if s.attributes.get("latentq.job_id") == job["id"]]
        return next((span for span in of_job if span.name == "attempt"), None)

    assert wait_until(ended, timeout_s=30).attributes["latentq.outcome"] == "canceled"
