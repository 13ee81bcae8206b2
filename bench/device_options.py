"""What each device option of a catalog entry changes in the time of a forward."""

import dataclasses
import statistics
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any

from bench.curve import BatchCurve, measure_curve
from bench.device import milli
from evals.report import Table
from shared.catalog import Catalog
from shared.device_options import DeviceOptions
from shared.errors import ModelUnavailable
from worker.engine import ModelCache

#: By the words of the table; each alone, since they are chosen one by one.
VARIANTS: dict[str, dict[str, str | bool]] = {
    "none": {},
    'dtype = "bfloat16"': {"dtype": "bfloat16"},
    'dtype = "float16"': {"dtype": "float16"},
    "channels_last = true": {"channels_last": True},
    'attention = "eager"': {"attention": "eager"},
    'attention = "sliced"': {"attention": "sliced"},
    "compile = true": {"compile": True},
}
ROWS = (1, 2, 8, 16)
#: A curve, or why the device cannot.
Measured = dict[str, BatchCurve | str]


def measure_options(
    catalog: Catalog, device: str, *, repeats: int, clock: Callable[[], float], has_compiled: bool
) -> Measured:
    """Time forwards of the default model with one option after the other."""
    measured: Measured = {}
    for words, options in VARIANTS.items():
        if options.get("compile") and not has_compiled:
            continue
        spec = dataclasses.replace(
            catalog.models[catalog.default], device_options=DeviceOptions.model_validate(options)
        )
        special = dataclasses.replace(catalog, models={spec.id: spec})
        try:
            family = ModelCache(special, device).load(spec.id)
        except ModelUnavailable as error:
            measured[words] = error.detail
            continue
        rows = [count for count in ROWS if count <= spec.max_rows]
        measured[words] = measure_curve(family, rows, repeats=repeats, clock=clock)
    return measured


def tabulate_options(rounds: Sequence[Measured], *, unit: str) -> Table:
    """Show medians over rounds, and each as a ratio to that of no option."""
    plain = [curve for one in rounds if isinstance(curve := one["none"], BatchCurve)]
    row_counts = list(plain[0].seconds)
    table = []
    for words in rounds[0]:
        curves = [curve for one in rounds if isinstance(curve := one[words], BatchCurve)]
        if not curves:
            table.append([words, *["refused"] * len(row_counts)])
            continue
        cells = []
        for rows in row_counts:
            ms = statistics.median(1000 * curve.seconds[rows] for curve in curves)
            ratio = statistics.median(
                curve.seconds[rows] / base.seconds[rows]
                for curve, base in zip(curves, plain, strict=True)
            )
            cells.append(f"{ms:.1f} ({ratio:.2f})")
        table.append([words, *cells])
    columns = ["option", *(f"{rows} rows" for rows in row_counts)]
    title = f"A forward by device option: {milli(unit)} (ratio to none)"
    return Table(title, columns, table)


def describe_options(measured: Measured) -> dict[str, Any]:
    """Return what was measured as JSON has it."""
    return {
        words: asdict(curve) if isinstance(curve, BatchCurve) else {"refused": curve}
        for words, curve in measured.items()
    }
