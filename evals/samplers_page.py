"""`python -m evals.samplers_page`: write the page of what goes with what, from the code's own word.

One table for each kind of model. Numbers hold for Stable Diffusion's training schedule.
"""

import itertools
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from evals.kinds import Kind, load_kinds
from evals.report import Table, render_page
from shared.compatibility import STOCHASTIC, explain_limit, find_refusal, max_steps
from shared.vocab import Sampler, Schedule

PAGE = Path("docs/reference/samplers.md")
TITLE = "Samplers and schedules"
QUESTION = """\
Which samplers go with which schedules, on which kind of model? A number is the most steps, `yes`
stands for as many as the model has training timesteps (1,000 here). Anything else is what to ask
for instead: a request for that cell is refused with the reason and the same advice. Where the
cells of one kind differ by what the network predicts, each is told apart. The numbers hold for
Stable Diffusion's training schedule; `GET /v1/samplers` has those of each model of an
installation. `allow_undistilled` lets `lcm` and `tcd` run on the native schedule of any diffusion
model."""


def main(output: Annotated[Path, typer.Option(help="Where to write it.")] = PAGE) -> None:
    """Write the page."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render())
    print(f"wrote {output}")  # noqa: T201


def render() -> str:
    """Write the whole page as markdown."""
    kinds: dict[str, list[Kind]] = defaultdict(list)
    for kind in load_kinds():
        kinds[kind.name].append(kind)
    tables = [
        table for name, same in kinds.items() for table in (_cells_of(name, same), _why(name, same))
    ]
    return render_page(TITLE, QUESTION, tables, "python -m evals.samplers_page")


def _cells_of(name: str, kinds: Sequence[Kind]) -> Table:
    predictions = ", ".join(kind.spec.prediction_type for kind in kinds)
    return Table(
        f"{name[0].upper()}{name[1:]} models ({predictions})",
        ("sampler", "noise", *Schedule),
        [
            (
                f"`{sampler}`",
                "new at every step" if sampler in STOCHASTIC else "the first only",
                *(_cell(sampler, schedule, kinds) for schedule in Schedule),
            )
            for sampler in Sampler
        ],
        num_names=2 + len(Schedule),
    )


def _cell(sampler: Sampler, schedule: Schedule, kinds: Sequence[Kind]) -> str:
    answers: dict[str, list[str]] = defaultdict(list)
    for kind in kinds:
        answers[_answer(sampler, schedule, kind)].append(kind.spec.prediction_type)
    if len(answers) == 1:
        return next(iter(answers))
    return "; ".join(f"{', '.join(of)}: {answer}" for answer, of in answers.items())


def _answer(sampler: Sampler, schedule: Schedule, kind: Kind) -> str:
    refusal = find_refusal(sampler, schedule, kind.spec)
    if refusal is None:
        most = max_steps(sampler, schedule, kind.spec)
        return "yes" if most == kind.spec.training.num_train_timesteps else f"{most}"
    where = refusal.instead_schedule
    on = "" if where is schedule else f" on {where}"
    return f"→ `{refusal.instead}`{on}"


def _why(name: str, kinds: Sequence[Kind]) -> Table:
    """List every reason once, with the cells that it stands for."""
    samplers: dict[str, dict[str, None]] = defaultdict(dict)
    for kind, sampler, schedule in itertools.product(kinds, Sampler, Schedule):
        reason = _reason(sampler, schedule, kind)
        if reason is not None:
            samplers[reason][f"`{sampler}`"] = None
    return Table(
        f"Why not, on {name} models",
        ("samplers", "reason"),
        [(", ".join(names), reason) for reason, names in samplers.items()],
        num_names=2,
    )


def _reason(sampler: Sampler, schedule: Schedule, kind: Kind) -> str | None:
    """Say why a cell is not plainly `yes`, without the sampler's own name."""
    refusal = find_refusal(sampler, schedule, kind.spec)
    if refusal is not None:
        return refusal.reason.replace(sampler, "it", 1)
    most = max_steps(sampler, schedule, kind.spec)
    is_limited = most < kind.spec.training.num_train_timesteps
    return explain_limit(sampler, kind.spec) if is_limited else None


if __name__ == "__main__":
    typer.run(main)
