"""The combinations of a sweep."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from api.schemas import (
    AsText,
    Guidance,
    JobCreate,
    Seed,
    Steps,
    Text,
    refuse_repetition,
)
from shared.errors import FieldProblem, InvalidRequest
from shared.vocab import Sampler, Schedule

#: A value of one of the fields that vary.
Coordinate = str | int | float

ValueT = TypeVar("ValueT")
_Axis = Annotated[list[ValueT], Field(min_length=1), AfterValidator(refuse_repetition)]


class SweepCreate(BaseModel):
    """A job, and for some of its fields the values that they shall take instead.

    Jobs are made of all combinations, the list that stands last here varying fastest.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    job: JobCreate
    presets: _Axis[Text] | None = None
    samplers: _Axis[Annotated[Sampler, AsText]] | None = None
    schedules: _Axis[Annotated[Schedule, AsText]] | None = None
    steps: _Axis[Steps] | None = None
    guidance: _Axis[Guidance] | None = None
    seeds: _Axis[Seed] | None = None
    #: Leave out what cannot work instead of refusing all.
    skip_invalid: bool = False

    @property
    def axes(self) -> Mapping[str, list[Any]]:
        """The values by the field of a job that takes them."""
        lists = {field: getattr(self, name) for field, name in LIST_OF.items()}
        return {field: values for field, values in lists.items() if values is not None}

    @property
    def num_points(self) -> int:
        """Count the combinations."""
        return math.prod(len(values) for values in self.axes.values())


#: The list of a sweep that a field of a job takes its values from, the slowest to vary first.
LIST_OF = {
    "preset": "presets",
    "sampler": "samplers",
    "schedule": "schedules",
    "steps": "steps",
    "guidance": "guidance",
    "seed": "seeds",
}


@dataclass(frozen=True, slots=True)
class Point:
    """One combination: its place in the order of all, its values, and the job with them."""

    index: int
    coordinates: Mapping[str, Coordinate]
    #: Of each value, its place in its list.
    places: Mapping[str, int]
    body: JobCreate

    def __str__(self) -> str:
        """Write the values for a sentence."""
        return ", ".join(f"{field} {value}" for field, value in self.coordinates.items())

    def has(self, pointer: str) -> bool:
        """Tell whether it holds what a pointer into the body of the sweep shows."""
        return pointer.startswith("#/job") or pointer in (
            self._locate(f"#/{field}") for field in self.places
        )

    def locate(self, refusal: InvalidRequest) -> InvalidRequest:
        """Say of a refusal of the job where its fields stand in the body of the sweep."""
        problems = [FieldProblem(self._locate(p.pointer), p.detail) for p in refusal.problems]
        return InvalidRequest(problems, code=refusal.code)

    def _locate(self, pointer: str) -> str:
        field = pointer.removeprefix("#/")
        if field in self.places:
            return f"#/{LIST_OF[field]}/{self.places[field]}"
        return "#/job" + pointer.removeprefix("#")


def expand(sweep: SweepCreate, *, new_seed: Callable[[], int]) -> list[Point]:
    """Make all combinations; jobs without a seed get the same, so that they can be compared.

    Raises:
        InvalidRequest: A field has a value in the job and a list beside it.
    """
    axes = sweep.axes
    twice = [field for field in axes if getattr(sweep.job, field) is not None]
    if twice:
        raise InvalidRequest(
            [
                FieldProblem(f"#/job/{field}", f"leave it out, or {LIST_OF[field]}; one decides")
                for field in twice
            ]
        )
    base = sweep.job
    if "seed" not in axes and base.seed is None:
        base = base.model_copy(update={"seed": new_seed()})
    points = []
    for index, chosen in enumerate(itertools.product(*(enumerate(axes[f]) for f in axes))):
        coordinates = {field: value for field, (_, value) in zip(axes, chosen, strict=True)}
        places = {field: place for field, (place, _) in zip(axes, chosen, strict=True)}
        points.append(Point(index, coordinates, places, base.model_copy(update=coordinates)))
    return points
