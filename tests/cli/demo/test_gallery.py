import io
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFont

from cli.demo.gallery import COLUMNS, PICTURE, Picture, draw_contact_sheet, wrap, write_page
from cli.demo.jobs import JOBS
from latentq_client import Job
from models import CATALOG
from shared.catalog import Catalog
from shared.compatibility import CONSISTENCY, DIFFUSION_SAMPLERS
from shared.vocab import Determinism, Schedule

FONT = ImageFont.load_default(13)


def picture(prompt: str, color: tuple[int, int, int] = (255, 0, 0)) -> Picture:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), color).save(file, "PNG")
    request: dict[str, Any] = {
        "prompt": prompt,
        "model": "demo",
        "sampler": "ddim",
        "schedule": "native",
        "steps": 4,
        "guidance": 3.0,
        "determinism": "fast",
        "output_format": "png",
        "seed": 7,
    }
    now = datetime.now(UTC).isoformat()
    job = Job.read(
        {
            "id": "job_1",
            "status": "succeeded",
            "request": request,
            "preset": {"name": "balanced"},
            "progress": {"iteration": 4, "iterations": 4, "eta_s": None},
            "artifacts": [],
            "error": None,
            "execution": {},
            "created_at": now,
            "started_at": now,
            "finished_at": now,
        }
    )
    return Picture(job=job, subject=prompt, path=Path("01-0.png"), seed=8, data=file.getvalue())


class Tags(HTMLParser):
    """Collects what a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append(dict(attrs))


@given(
    st.text(
        alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\0\r"), min_size=1
    )
)
def test_a_page_shows_a_prompt_and_never_runs_it(prompt: str) -> None:
    hostile = f'"><script>alert(1)</script>{prompt}'
    tags = Tags()
    tags.feed(write_page([picture(hostile)]))
    assert "script" not in tags.tags
    (image,) = [a for t, a in zip(tags.tags, tags.attributes, strict=True) if t == "img"]
    assert image["alt"] == hostile
    assert image["src"] == "01-0.png"
    assert "seed 8" in write_page([picture(prompt)])


def sound(look: tuple[int, int, int]) -> Picture:
    """A sound whose spectrogram is one color."""
    seen = picture("a high tone", look)
    return replace(seen, path=Path("02-0.wav"), data=b"RIFF", spectrogram=seen.data)


def test_a_page_plays_sounds_and_shows_what_they_look_like() -> None:
    tags = Tags()
    tags.feed(write_page([sound((1, 2, 3))]))
    found = dict(zip(tags.tags, tags.attributes, strict=True))
    assert found["audio"]["src"] == found["a"]["href"] == "02-0.wav"
    assert found["img"]["src"] == "02-0.webp"
    counts = draw_contact_sheet([sound((1, 2, 3))]).getcolors(maxcolors=2**20) or []
    assert (PICTURE**2, (1, 2, 3)) in counts


def test_a_contact_sheet_holds_every_picture() -> None:
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 0, 255), (0, 255, 255)]
    pictures = [picture("a square", color) for color in colors * 2]
    sheet = draw_contact_sheet(pictures)
    assert sheet.width > COLUMNS * PICTURE
    counts = {color: count for count, color in sheet.getcolors(maxcolors=2**20) or []}
    assert all(counts[color] == 2 * PICTURE**2 for color in colors)


@given(st.text(st.sampled_from("abcdefghij ﷽W"), max_size=200), st.integers(60, 400))
def test_wrapped_text_stays_in_its_place(text: str, width_px: int) -> None:
    lines = wrap(text, FONT, width_px, max_lines=2)
    assert 1 <= len(lines) <= 2
    if len(lines) == 2:
        assert FONT.getlength(lines[1]) <= width_px or " " not in lines[1]


def test_the_demo_asks_for_everything_there_is() -> None:
    fields = [job.fields for job in JOBS]
    assert len(JOBS) >= 12
    assert {f.get("model", "demo") for f in fields} == set(Catalog.load(CATALOG).models)
    assert {f.get("preset", "balanced") for f in fields} == {
        "balanced", "creative", "precise", "fast", "reference",
    }  # fmt: skip
    assert {f["sampler"] for f in fields if "sampler" in f} | {"dpmpp_2m", "ddpm"} == set(
        DIFFUSION_SAMPLERS
    ) - CONSISTENCY
    assert {f["schedule"] for f in fields if "schedule" in f} | {"native"} == set(Schedule)
    assert {f.get("determinism", "fast") for f in fields} == set(Determinism)
    assert {f.get("guidance") for f in fields} >= {1, 12}
