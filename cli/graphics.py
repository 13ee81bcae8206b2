"""Pictures as terminals take them: escape sequences of three protocols, and characters."""

import base64
import io
from itertools import groupby
from typing import TYPE_CHECKING

from rich.color import Color
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from PIL.Image import Image

#: How high a picture is, in lines; a line is about as high as two columns are wide.
ROWS = 16
#: The same in sixels, whose size is in pixels, for lines of 12: higher ones leave room.
SIXEL_PX = 192
SIXEL_COLORS = 64
#: Kitty replaces a picture by another one of the same number.
_KITTY_ID = 7111
_KITTY_CHUNK = 4096


def in_kitty(data: bytes) -> str:
    """Write a picture for Kitty: as PNG, in pieces."""
    png = io.BytesIO()
    _open(data).save(png, "PNG")
    text = base64.b64encode(png.getvalue()).decode("ascii")
    pieces = [text[start : start + _KITTY_CHUNK] for start in range(0, len(text), _KITTY_CHUNK)]
    # Displayed at once, without an answer, the cursor left where it is.
    keys = f"a=T,f=100,q=2,C=1,i={_KITTY_ID},r={ROWS},"
    return "".join(
        f"\x1b_G{keys if number == 0 else ''}m={int(number < len(pieces) - 1)};{piece}\x1b\\"
        for number, piece in enumerate(pieces)
    )


def in_iterm2(data: bytes) -> str:
    """Write a picture for iTerm2: the file as it is."""
    text = base64.b64encode(data).decode("ascii")
    keys = f"inline=1;size={len(data)};height={ROWS};preserveAspectRatio=1;doNotMoveCursor=1"
    return f"\x1b]1337;File={keys}:{text}\a"


def in_sixels(data: bytes) -> str:
    """Write a picture in bands six pixels high, a color of its palette at a time."""
    picture = _scale(_open(data), SIXEL_PX).quantize(SIXEL_COLORS)
    width, height = picture.size
    palette = picture.getpalette() or []
    colors = [
        "#{};2;{};{};{}".format(number, *(round(level / 2.55) for level in palette[at : at + 3]))
        for number, at in enumerate(range(0, len(palette), 3))
    ]
    pixels = picture.tobytes()
    bands = []
    for top in range(0, height, 6):
        rows = [pixels[y * width : (y + 1) * width] for y in range(top, min(top + 6, height))]
        lines = []
        for color in sorted(set().union(*rows)):
            bits = (
                sum((row[x] == color) << bit for bit, row in enumerate(rows)) for x in range(width)
            )
            runs = ((chr(63 + sixel), len(list(run))) for sixel, run in groupby(bits))
            lines.append(
                f"#{color}" + "".join(f"!{n}{sixel}" if n > 3 else sixel * n for sixel, n in runs)
            )
        bands.append("$".join(lines))
    return f'\x1bPq"1;1;{width};{height}{"".join(colors)}{"-".join(bands)}\x1b\\'


def in_blocks(data: bytes) -> Text:
    """Write a picture in characters, each of which shows two pixels."""
    picture = _scale(_open(data), 2 * ROWS)
    width, height = picture.size
    pixels = picture.tobytes()

    def color(x: int, y: int) -> Color:
        at = 3 * (y * width + x)
        return Color.from_rgb(*pixels[at : at + 3])

    lines = [
        Text.assemble(
            *(("▀", Style(color=color(x, y), bgcolor=color(x, y + 1))) for x in range(width))
        )
        for y in range(0, height, 2)
    ]
    return Text("\n").join(lines)


def _open(data: bytes) -> "Image":
    from PIL import Image

    return Image.open(io.BytesIO(data)).convert("RGB")


def _scale(picture: "Image", height: int) -> "Image":
    return picture.resize((max(1, round(picture.width * height / picture.height)), height))
