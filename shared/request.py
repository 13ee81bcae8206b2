"""The complete, immutable description of what a job generates."""

from typing import Annotated, Any, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, model_validator

from shared.adapters import MAX_ADAPTERS, AdapterUse
from shared.vocab import (
    Determinism,
    OutputFormat,
    Sampler,
    Schedule,
    ServiceClass,
    first_iteration,
    num_iterations,
)

#: JavaScript's largest exact integer: a seed above it would change on its way through a browser.
SEED_LIMIT = 2**53
#: The longest deadline, in seconds.
MAX_DEADLINE_S = 604_800
#: Pixels of one megapixel-iteration, the unit of cost.
MEGAPIXEL = 1_000_000
#: What a second of sound counts as, in pixels: the samples of a CD's, whatever the model's rate.
SECOND_PIXELS = 44_100


def _is_none(value: object) -> bool:
    return value is None


class InputImage(BaseModel):
    """An uploaded picture that a job needs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    #: The upload's id, of the tenant that the job belongs to.
    id: str
    #: What it must hold, in hexadecimal.
    sha256: str


class GenerationRequest(BaseModel):
    """A job's request with preset, defaults and seed resolved.

    The row stores it and the worker needs nothing else. Every field is explicit: a preset or a
    default that changes later never changes an accepted job.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    #: None for models that are told a label.
    prompt: Annotated[
        Annotated[str, Field(min_length=1, max_length=4000)] | None, Field(repr=False)
    ] = None
    negative_prompt: Annotated[str, Field(max_length=4000, repr=False)] = ""
    #: The number of what a class-conditional model shall show. Where there is none nothing is
    #: stored: workers of earlier releases know no such field.
    class_label: Annotated[Annotated[int, Field(ge=0)] | None, Field(exclude_if=_is_none)] = None
    model: str
    sampler: Sampler
    schedule: Schedule
    steps: Annotated[int, Field(ge=1, le=1000)]
    guidance: Annotated[float, Field(ge=1, le=50, allow_inf_nan=False)]
    guidance_rescale: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = 0.0
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)]
    #: Of pictures; sounds have a duration. What it has not is not stored, as above.
    width: Annotated[Annotated[int, Field(ge=8)] | None, Field(exclude_if=_is_none)] = None
    height: Annotated[Annotated[int, Field(ge=8)] | None, Field(exclude_if=_is_none)] = None
    duration_s: Annotated[
        Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, Field(exclude_if=_is_none)
    ] = None
    num_outputs: Annotated[int, Field(ge=1, le=8)] = 1
    init_image: InputImage | None = None
    mask: InputImage | None = None
    #: The share of the steps that is taken from `init_image` on; None without one.
    strength: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] | None = None
    #: In the order of their ids: in which one they were named changes nothing.
    adapters: Annotated[tuple[AdapterUse, ...], Field(max_length=MAX_ADAPTERS)] = ()
    output_format: OutputFormat = OutputFormat.PNG
    allow_undistilled: bool = False
    determinism: Determinism = Determinism.FAST
    service_class: ServiceClass = ServiceClass.INTERACTIVE
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    #: Queue and run together, from the moment the job was accepted.
    deadline_s: Annotated[int, Field(ge=1, le=MAX_DEADLINE_S)] = 86_400
    #: It waits until then; None is as good as any moment that has passed.
    not_before: AwareDatetime | None = None

    @model_validator(mode="after")
    def _has_one_extent(self) -> Self:
        sides = {self.width is None, self.height is None}
        if len(sides) != 1 or sides == {self.duration_s is None}:
            raise ValueError("a picture has width and height, a sound has a duration")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of its pictures.

        Raises:
            ValueError: It asks for sounds.
        """
        if self.width is None or self.height is None:
            raise ValueError("a sound has no width and no height")
        return self.width, self.height

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seed of each output, so that any one of them can be made again alone."""
        return tuple((self.seed + index) % SEED_LIMIT for index in range(self.num_outputs))

    @property
    def is_guided(self) -> bool:
        """Whether classifier-free guidance applies; without it a forward has one row, not two."""
        return self.guidance > 1

    @property
    def first_iteration(self) -> int:
        """The iteration that each trajectory begins with: above 0 when it starts from a picture."""
        if self.strength is None:
            return 0
        return first_iteration(self.sampler, self.steps, self.strength)

    @property
    def iterations(self) -> int:
        """Forwards that all outputs need together."""
        left = num_iterations(self.sampler, self.steps) - self.first_iteration
        return left * self.num_outputs

    @property
    def megapixel_iterations(self) -> float:
        """The cost of the job in a unit that does not depend on the machine."""
        if self.duration_s is not None:
            return self.duration_s * SECOND_PIXELS * self.iterations / MEGAPIXEL
        width, height = self.size
        return width * height * self.iterations / MEGAPIXEL

    def recipe(self) -> dict[str, Any]:
        """Return what a result's file says of its request.

        Pictures stand there by their content alone, and the time to wait for not at all: where they
        were kept and when it was changes no pixel, and equal requests shall give equal bytes.
        """
        return self.model_dump(
            mode="json", exclude={"init_image": {"id"}, "mask": {"id"}, "not_before": True}
        )
