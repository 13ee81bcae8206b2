"""Models that jobs are compared with stock diffusers on: the demo model, and tiny ones.

The tiny ones are written when they are needed; see `evals/tiny_models.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from evals.tiny_models import write_flux, write_sd3, write_sdxl, write_stable_diffusion
from models import CATALOG
from shared.catalog import Catalog

DEMO = "demo"
#: Pixels along a side of what the tiny models draw unless they are asked for other sizes, and most.
SIDE, MAX_SIDE = 32, 64


@dataclass(frozen=True, slots=True)
class Subject:
    """A kind of model of a family."""

    id: str
    family: str
    #: Writes its folder; the demo model has one.
    write: Callable[[Path], Path] | None


SUBJECTS = (
    Subject(DEMO, "stable_diffusion", None),
    Subject("told", "stable_diffusion", write_stable_diffusion),
    Subject("sdxl", "sdxl", write_sdxl),
    Subject("sdxl-told", "sdxl", partial(write_sdxl, is_told=True)),
    Subject("sd3", "sd3", write_sd3),
    Subject("sd3-without-t5", "sd3", partial(write_sd3, has_t5=False)),
    Subject("flux", "flux", write_flux),
    Subject("flux-fast", "flux", partial(write_flux, is_told=False)),
)
FAMILIES = tuple(dict.fromkeys(subject.family for subject in SUBJECTS))


def load_subject(subject: Subject, folder: Path) -> Catalog:
    """Return a catalog with the model of a subject, which is written to an empty folder."""
    if subject.write is None:
        return Catalog.load(CATALOG)
    path = subject.write(folder / subject.id)
    (folder / "catalog.toml").write_text(
        f'default = "{subject.id}"\n[models.{subject.id}]\npath = "{path}"\nrevision = "1"\n'
        f"width = {SIDE}\nheight = {SIDE}\nmax_width = {MAX_SIDE}\nmax_height = {MAX_SIDE}\n"
    )
    return Catalog.load(folder / "catalog.toml")
