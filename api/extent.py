"""How large the pictures of a job are, or how long its sounds, and what they are written as."""

from collections.abc import Iterator
from dataclasses import dataclass

from api.schemas import JobCreate
from shared.catalog import ModelSpec
from shared.errors import FieldProblem
from shared.vocab import OUTPUT_FORMATS, Medium, OutputFormat


@dataclass(frozen=True, slots=True)
class Extent:
    """The size of a picture or the duration of a sound: the other is None."""

    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


def settle_extent(body: JobCreate, spec: ModelSpec) -> Extent:
    """Return what a body says, or else the model's own."""
    if spec.sound is not None:
        return Extent(duration_s=body.duration_s or spec.sound.duration_s)
    return Extent(width=body.width or spec.width, height=body.height or spec.height)


def settle_format(body: JobCreate, spec: ModelSpec) -> OutputFormat:
    """Return what a body says, or else what its medium is written as."""
    return body.output_format or OUTPUT_FORMATS[spec.medium][0]


def check_extent(body: JobCreate, spec: ModelSpec) -> Iterator[FieldProblem]:
    """Check size, duration and file format against what a model makes."""
    extent = settle_extent(body, spec)
    if spec.medium is Medium.AUDIO:
        yield from _check_sound(body, extent, spec)
    else:
        yield from _check_picture(body, extent, spec)
    formats = OUTPUT_FORMATS[spec.medium]
    if settle_format(body, spec) not in formats:
        known = ", ".join(formats)
        yield FieldProblem("#/output_format", f"{spec.id} makes {spec.medium} files: {known}")


def _check_picture(body: JobCreate, extent: Extent, spec: ModelSpec) -> Iterator[FieldProblem]:
    sides = {"width": (extent.width, spec.max_width), "height": (extent.height, spec.max_height)}
    for name, (pixels, limit) in sides.items():
        if pixels is None:
            continue
        if spec.has_one_size:
            if pixels != limit:
                yield FieldProblem(f"#/{name}", f"{spec.id} makes {limit} pixels, and no others")
        elif pixels % spec.size_step or pixels > limit:
            detail = f"{spec.id} makes multiples of {spec.size_step} pixels up to {limit}"
            yield FieldProblem(f"#/{name}", detail)
    if body.duration_s is not None:
        detail = f"only audio models take a duration; {spec.id} makes {spec.medium}s"
        yield FieldProblem("#/duration_s", detail)


def _check_sound(body: JobCreate, extent: Extent, spec: ModelSpec) -> Iterator[FieldProblem]:
    for name in ("width", "height"):
        if getattr(body, name) is not None:
            detail = f"{spec.id} makes sounds, which have a duration_s and no {name}"
            yield FieldProblem(f"#/{name}", detail)
    sound, asked = spec.sound, extent.duration_s
    if sound is None or asked is None:
        return
    if not sound.min_duration_s <= asked <= sound.max_duration_s:
        detail = f"{spec.id} makes {sound.min_duration_s:g} to {sound.max_duration_s:g} seconds"
        yield FieldProblem("#/duration_s", detail)
