"""`/metrics` of the dispatcher: a gauge for each state that is bad."""

import math

from prometheus_client import CollectorRegistry, Gauge, start_http_server

from dispatcher.checks import CHECKS
from dispatcher.situation import Observer
from shared.errors import ConfigurationError

#: Pause between two looks at the stores, in seconds; a scrape shows the last one.
INTERVAL_S = 10.0


class StateGauges:
    """Gauges that show what an observer sees; NaN stands for what cannot be known now."""

    def __init__(self, observer: Observer) -> None:
        self.registry = CollectorRegistry()
        self._observer = observer
        self._gauges = [
            (check, Gauge(check.metric, check.meaning, registry=self.registry)) for check in CHECKS
        ]
        for _, gauge in self._gauges:
            gauge.set(math.nan)

    def run_once(self) -> None:
        """Look once."""
        situation = self._observer.look()
        for check, gauge in self._gauges:
            verdict = check.judge(situation)
            gauge.set(math.nan if verdict is None else verdict.amount)

    def serve(self, *, host: str, port: int) -> None:
        """Answer scrapes from now on, in a thread of its own.

        Raises:
            ConfigurationError: The port cannot be had.
        """
        try:
            start_http_server(port, addr=host, registry=self.registry)
        except OSError as error:
            raise ConfigurationError(
                f"LATENTQ_METRICS_PORT: {host}:{port} cannot be listened on: {error.strerror}"
            ) from error
