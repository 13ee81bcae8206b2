"""What an API process shows at `/metrics` of its own port: requests, refusals, jobs taken."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

#: Upper ends of buckets, in seconds.
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
#: Stands for every path that no route has, so that nobody makes names by asking for them.
NO_ROUTE = "none"


class ApiMetrics:
    """Counts of one process; any thread may count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self._requests = Counter(
            "latentq_http_requests",
            "Requests that were answered, by the route's template",
            ["method", "route", "status"],
            registry=registry,
        )
        self._seconds = Histogram(
            "latentq_http_request_seconds",
            "Time until an answer begins; one that waits for a job takes as long as that",
            ["method", "route"],
            buckets=REQUEST_BUCKETS,
            registry=registry,
        )
        self._refusals = Counter(
            "latentq_refusals",
            "Answers that were problems, by the problem's code",
            ["code"],
            registry=registry,
        )
        self._accepted = Counter(
            "latentq_jobs_accepted", "Jobs that were stored", ["model"], registry=registry
        )
        self._cancels = Counter(
            "latentq_cancel_requests",
            "Wishes to cancel, by what they came to",
            ["outcome"],
            registry=registry,
        )

    def show_waiting(self, count: Callable[[], int]) -> None:
        """Show how many requests and streams wait for jobs."""
        waiting = Gauge(
            "latentq_requests_waiting",
            "Requests and streams that wait for a job",
            registry=self.registry,
        )
        waiting.set_function(count)

    def note_answer(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request and how long it took."""
        self._requests.labels(method, route, status).inc()
        self._seconds.labels(method, route).observe(seconds)

    def note_refusal(self, code: str) -> None:
        """Count a problem."""
        self._refusals.labels(code).inc()

    def note_accepted(self, model: str) -> None:
        """Count a job that was stored."""
        self._accepted.labels(model).inc()

    def note_cancel(self, outcome: str) -> None:
        """Count a wish to cancel."""
        self._cancels.labels(outcome).inc()
