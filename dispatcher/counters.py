"""What a dispatcher counts of its own doing, for `/metrics`."""

from prometheus_client import CollectorRegistry, Counter, Histogram

#: Upper ends of buckets, in seconds; no attempt may take longer than the last.
ATTEMPT_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Counters:
    """Counts of one process; any thread may count."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._announced = Counter(
            "latentq_jobs_announced",
            "Messages sent by this dispatcher; API processes send most of them",
            registry=registry,
        )
        self._redispatched = Counter(
            "latentq_redispatches",
            "Messages sent again, since nobody had taken the first",
            registry=registry,
        )
        self._taken_back = Counter(
            "latentq_jobs_taken_back",
            "Jobs whose worker was lost or whose deadline passed, by what became of them",
            ["status"],
            registry=registry,
        )
        self._webhooks = Counter(
            "latentq_webhook_attempts",
            "Attempts to deliver a webhook, by their outcome",
            ["outcome"],
            registry=registry,
        )
        self._webhook_s = Histogram(
            "latentq_webhook_attempt_seconds",
            "Time of an attempt to deliver a webhook",
            buckets=ATTEMPT_BUCKETS,
            registry=registry,
        )

    def note_announced(self, num_jobs: int) -> None:
        """Count messages."""
        self._announced.inc(num_jobs)

    def note_redispatched(self, num_jobs: int) -> None:
        """Count messages that were sent again."""
        self._redispatched.inc(num_jobs)

    def note_taken_back(self, status: str) -> None:
        """Count a job that was taken back, or ended."""
        self._taken_back.labels(status).inc()

    def note_webhook(self, outcome: str, seconds: float) -> None:
        """Count an attempt to deliver."""
        self._webhooks.labels(outcome).inc()
        self._webhook_s.observe(seconds)
