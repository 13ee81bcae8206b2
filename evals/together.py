"""Run requests in each other's company."""

from collections.abc import Sequence

from shared.request import GenerationRequest
from worker.engine import Engine, JobResult


def run_together(engine: Engine, requests: Sequence[GenerationRequest]) -> list[JobResult]:
    """Run requests, whose seeds differ, in an engine that begins when all are there, and end it."""
    futures = [engine.submit(str(request.seed), request) for request in requests]
    engine.start()
    results = [future.result() for future in futures]
    engine.stop()
    return results
