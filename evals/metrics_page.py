"""`python -m evals.metrics_page`: write the tables of the metrics, from the code's own word."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, cast

import typer
from prometheus_client import CollectorRegistry

from api.metrics import ApiMetrics
from dispatcher.checks import CHECKS
from dispatcher.counters import Counters
from dispatcher.metrics import StateGauges
from dispatcher.situation import Observer
from evals.report import Table, render_tables
from models import CATALOG
from shared.catalog import Catalog
from shared.metrics import StoreLatency, new_registry
from worker.engine import Engine, EngineConfig, ModelCache
from worker.metrics import AttemptMetrics, EngineCollector, show_leases

PAGE = Path("docs/operations/observability.md")
BEGIN = "<!-- Made by `python -m evals.metrics_page`; do not edit it by hand. -->"
END = "<!-- The end of what it makes. -->"


@dataclass(frozen=True, slots=True)
class ShownMetric:
    """A metric as a page names it."""

    #: With the `_total` of counters, without the `_bucket`, `_sum` and `_count` of histograms.
    name: str
    kind: str
    labels: tuple[str, ...]
    meaning: str


def main(output: Annotated[Path, typer.Option(help="The page to write them into.")] = PAGE) -> None:
    """Write the tables into the page."""
    output.write_text(render(output.read_text()))
    print(f"wrote {output}")  # noqa: T201


def render(page: str) -> str:
    """Return a page with the tables in the place of those that it has.

    Raises:
        ValueError: It has no place for them.
    """
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    return f"{before}{BEGIN}\n\n{render_tables([*_tables()])}\n{END}{after}"


def list_metrics() -> dict[str, list[ShownMetric]]:
    """Return the metrics of each kind of process, and those that all of them have."""
    bad_states = {check.metric for check in CHECKS}
    listed = {title: [*_list(registry)] for title, registry in _make_registries().items()}
    listed["Dispatcher"] = [m for m in listed["Dispatcher"] if m.name not in bad_states]
    return listed


def _tables() -> Iterator[Table]:
    columns: tuple[str, ...] = ("metric", "type", "labels", "what it shows")
    for title, metrics in list_metrics().items():
        rows = [
            (f"`{m.name}`", m.kind, ", ".join(f"`{label}`" for label in m.labels), m.meaning)
            for m in metrics
        ]
        yield Table(title, columns, rows, num_names=len(columns))
    columns = ("gauge", "what it shows", "what to do")
    states = [(f"`{check.metric}`", check.meaning, check.remedy) for check in CHECKS]
    yield Table("Bad states", columns, states, num_names=len(columns))


def _make_registries() -> dict[str, CollectorRegistry]:
    everywhere = new_registry(version="")
    StoreLatency(everywhere)
    api = CollectorRegistry()
    ApiMetrics(api).show_waiting(lambda: 0)
    dispatcher = CollectorRegistry()
    # Nobody looks.
    StateGauges(cast("Observer", None), dispatcher)
    Counters(dispatcher)
    worker = CollectorRegistry()
    AttemptMetrics(worker)
    catalog = Catalog.load(CATALOG)
    models = ModelCache(catalog, "cpu")
    worker.register(EngineCollector(Engine(EngineConfig(), models), models, catalog, device="cpu"))
    show_leases(worker, lambda: 0)
    return {"Every process": everywhere, "API": api, "Dispatcher": dispatcher, "Worker": worker}


def _list(registry: CollectorRegistry) -> Iterator[ShownMetric]:
    for collector in registry._collector_to_names:
        for family in collector.collect():
            labels: tuple[str, ...] = getattr(
                family, "_labelnames", getattr(collector, "_labelnames", ())
            )
            suffix = "_total" if family.type == "counter" else ""
            yield ShownMetric(f"{family.name}{suffix}", family.type, labels, family.documentation)


if __name__ == "__main__":
    typer.run(main)
