"""`python -m evals.metrics_page`: write the page of the metrics, from the code's own word."""

from pathlib import Path
from typing import Annotated

import typer

from dispatcher.checks import CHECKS
from evals.report import Table, render_page

PAGE = Path("docs/reference/metrics.md")
TITLE = "Metrics"
QUESTION = """\
What can be watched? The dispatcher serves these gauges for Prometheus at `/metrics` on the port
`LATENTQ_METRICS_PORT`; it is off unless that is set, and listens on `LATENTQ_METRICS_HOST`,
127.0.0.1 by default. Each is 0 while nothing is wrong, but for the clocks, which never agree
altogether: above 5 is wrong. `NaN` stands for what cannot be known while PostgreSQL or Redis is
away. The dispatcher looks every 10 seconds. `latentq doctor` looks at the same, once, and says
the same about what to do."""


def main(output: Annotated[Path, typer.Option(help="Where to write it.")] = PAGE) -> None:
    """Write the page."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render())
    print(f"wrote {output}")  # noqa: T201


def render() -> str:
    """Write the whole page as markdown."""
    columns = ("gauge", "what it shows", "what to do")
    rows = [(f"`{check.metric}`", check.meaning, check.remedy) for check in CHECKS]
    table = Table("Bad states", columns, rows, num_names=len(columns))
    return render_page(TITLE, QUESTION, [table], "python -m evals.metrics_page")


if __name__ == "__main__":
    typer.run(main)
