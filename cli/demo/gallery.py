"""The pictures and sounds of a demo, on a contact sheet and on a page."""

import html
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from latentq_client import Job

#: Sizes on the contact sheet, in pixels.
PICTURE = 192
GAP = 20
CAPTION = 91
COLUMNS = 6
INK, FAINT, PAPER = (28, 28, 30), (110, 110, 115), (250, 250, 248)


@dataclass(frozen=True, slots=True)
class Picture:
    """One output, saved."""

    job: Job
    #: What was asked for: the prompt, or the label by its name.
    subject: str
    path: Path
    seed: int
    data: bytes
    #: What a sound looks like; None for pictures.
    spectrogram: bytes | None = None

    @property
    def look(self) -> Path:
        """The file that shows it."""
        return self.path if self.spectrogram is None else self.path.with_suffix(".webp")

    @property
    def settings(self) -> tuple[str, str, str]:
        """How it was made, in three short lines."""
        request = self.job.request
        guidance = f"guidance {request['guidance']:g}, preset {self.job.preset}"
        return (
            request["model"],
            f"{request['sampler']} on {request['schedule']}, {request['steps']} steps",
            f"{guidance}, exact" if request["determinism"] == "exact" else guidance,
        )


def draw_contact_sheet(pictures: Sequence[Picture]) -> Image.Image:
    """Lay all pictures out with their captions."""
    rows = -(-len(pictures) // COLUMNS)
    size = (GAP + COLUMNS * (PICTURE + GAP), GAP + rows * (PICTURE + CAPTION + GAP))
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    prompt_font, settings_font = ImageFont.load_default(13), ImageFont.load_default(11)
    for number, picture in enumerate(pictures):
        left = GAP + number % COLUMNS * (PICTURE + GAP)
        top = GAP + number // COLUMNS * (PICTURE + CAPTION + GAP)
        image = Image.open(io.BytesIO(picture.spectrogram or picture.data)).convert("RGB")
        sheet.paste(image.resize((PICTURE, PICTURE), Image.Resampling.BICUBIC), (left, top))
        line = top + PICTURE + 6
        for text in wrap(picture.subject, prompt_font, PICTURE, max_lines=2):
            draw.text((left, line), text, font=prompt_font, fill=INK)
            line += 17
        line = top + PICTURE + 6 + 2 * 17 + 3
        for text in picture.settings:
            draw.text((left, line), text, font=settings_font, fill=FAINT)
            line += 15
    return sheet


def wrap(
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    width_px: int,
    *,
    max_lines: int,
) -> list[str]:
    """Break a text into lines of a width; what does not fit ends in an ellipsis."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width_px or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > max_lines:
        last = lines[max_lines - 1]
        while last and font.getlength(f"{last}…") > width_px:
            last = last[:-1]
        lines = [*lines[: max_lines - 1], f"{last.rstrip()}…"]
    return lines


def write_page(pictures: Sequence[Picture]) -> str:
    """Write a page that shows all pictures beside their recipes, for a browser and no server."""
    figures = "\n".join(_figure(picture) for picture in pictures)
    return _PAGE.format(figures=figures, count=len(pictures))


def _figure(picture: Picture) -> str:
    settings = html.escape(" · ".join(picture.settings))
    file = html.escape(picture.path.name)
    player = "" if picture.spectrogram is None else f'<audio controls src="{file}"></audio>'
    subject = html.escape(picture.subject)
    return (
        f'<figure><a href="{file}">'
        f'<img src="{html.escape(picture.look.name)}" alt="{subject}"></a>'
        f"{player}<figcaption>{subject}"
        f"<small>{settings} · seed {picture.seed}</small></figcaption></figure>"
    )


_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>LatentQ demo</title>
<style>
  body {{ margin: 3rem auto; max-width: 72rem; padding: 0 1.5rem; background: #fafaf8;
         color: #1c1c1e; font: 15px/1.5 system-ui, sans-serif; }}
  h1 {{ font-size: 1.4rem; margin-bottom: .2rem; }}
  p {{ color: #6e6e73; margin-top: 0; }}
  main {{ display: grid; gap: 2rem 1.5rem;
         grid-template-columns: repeat(auto-fill, minmax(12rem, 1fr)); }}
  figure {{ margin: 0; }}
  img {{ width: 100%; aspect-ratio: 1; border-radius: 6px; display: block; }}
  audio {{ width: 100%; height: 2rem; margin-top: .3rem; }}
  figcaption {{ margin-top: .5rem; }}
  small {{ display: block; color: #6e6e73; }}
</style>
<h1>LatentQ demo</h1>
<p>{count} outputs of the demo models. Each file carries the request that made it.</p>
<main>
{figures}
</main>
</html>
"""
