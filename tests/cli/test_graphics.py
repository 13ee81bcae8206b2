"""Pictures come out of what is sent to terminals as they went in."""

import base64
import io
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cli.graphics import ROWS, in_blocks, in_iterm2, in_kitty, in_sixels
from cli.preview import PreviewStyle, detect

COLORS = st.tuples(*[st.integers(0, 255)] * 3)


def make_file(colors: list[tuple[int, int, int]], width: int = 8, kind: str = "WEBP") -> bytes:
    """Draw vertical stripes."""
    picture = Image.new("RGB", (width * len(colors), 32))
    for number, color in enumerate(colors):
        picture.paste(color, (number * width, 0, (number + 1) * width, 32))
    file = io.BytesIO()
    picture.save(file, kind, lossless=True) if kind == "WEBP" else picture.save(file, kind)
    return file.getvalue()


def pixels_of(file: bytes) -> bytes:
    return Image.open(io.BytesIO(file)).convert("RGB").tobytes()


@settings(max_examples=10, deadline=None)
@given(st.lists(COLORS, min_size=1, max_size=40))
def test_kitty_gets_a_png_in_pieces(colors: list[tuple[int, int, int]]) -> None:
    file = make_file(colors, width=64)
    pieces = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", in_kitty(file))
    assert all(len(piece) <= 4096 for _, piece in pieces)
    assert [keys[-3:] for keys, _ in pieces] == [
        *["m=1"] * (len(pieces) - 1),
        "m=0",
    ]
    png = base64.b64decode("".join(piece for _, piece in pieces))
    assert png.startswith(b"\x89PNG")
    assert pixels_of(png) == pixels_of(file)


def test_iterm2_gets_the_file_itself() -> None:
    file = make_file([(1, 2, 3)])
    match = re.fullmatch(r"\x1b\]1337;File=(.*):(.*)\a", in_iterm2(file))
    assert match is not None
    assert f"size={len(file)};" in match[1]
    assert base64.b64decode(match[2]) == file


@settings(max_examples=5, deadline=None)
@given(st.lists(COLORS, min_size=1, max_size=6))
def test_sixels_show_the_picture(colors: list[tuple[int, int, int]]) -> None:
    head, body = re.fullmatch(
        r'\x1bPq"1;1;(\d+;\d+)(.*)\x1b\\', in_sixels(make_file(colors))
    ).groups()  # type: ignore[union-attr]
    width, height = map(int, head.split(";"))
    palette = {
        int(number): tuple(int(level) for level in levels.split(";"))
        for number, levels in re.findall(r"#(\d+);2;(\d+;\d+;\d+)", body)
    }
    drawn: dict[tuple[int, int], int] = {}
    bands = re.sub(r"#\d+;2;\d+;\d+;\d+", "", body).split("-")
    for band, lines in enumerate(bands):
        for line in lines.split("$"):
            color, x = -1, 0
            for number, count, sixel in re.findall(r"#(\d+)|(?:!(\d+))?([?-~])", line):
                if number:
                    color = int(number)
                    continue
                for _ in range(int(count or 1)):
                    for bit in range(6):
                        if (ord(sixel) - 63) >> bit & 1:
                            assert (x, band * 6 + bit) not in drawn
                            drawn[x, band * 6 + bit] = color
                    x += 1
    assert len(drawn) == width * height
    for number, wanted in enumerate(colors):
        middle = round((number + 0.5) * width / len(colors))
        shown = palette[drawn[middle, height // 2]]
        assert all(abs(a - b / 2.55) <= 2 for a, b in zip(shown, wanted, strict=True))


def test_characters_show_two_pixels_each() -> None:
    text = in_blocks(make_file([(255, 0, 0), (0, 0, 255)], width=16))
    lines = text.split("\n")
    assert len(lines) == ROWS
    assert {line.plain for line in lines} == {"▀" * 2 * ROWS}
    first = lines[0].spans[0].style
    assert "#ff0000 on #ff0000" in str(first)


@pytest.mark.parametrize(
    ("environment", "style"),
    [
        ({"TERM": "xterm-kitty"}, PreviewStyle.KITTY),
        ({"TERM": "xterm-256color", "KITTY_WINDOW_ID": "1"}, PreviewStyle.KITTY),
        ({"TERM_PROGRAM": "ghostty"}, PreviewStyle.KITTY),
        ({"TERM_PROGRAM": "iTerm.app"}, PreviewStyle.ITERM2),
        ({"TERM": "xterm-256color", "LC_TERMINAL": "iTerm2"}, PreviewStyle.ITERM2),
        ({"TERM": "foot"}, PreviewStyle.SIXEL),
        ({"TERM": "xterm-256color"}, PreviewStyle.OFF),
        ({"TERM": "tmux-256color", "KITTY_WINDOW_ID": "1"}, PreviewStyle.OFF),
        ({}, PreviewStyle.OFF),
    ],
)
def test_only_what_is_known_to_show_pictures_gets_them(
    environment: dict[str, str], style: PreviewStyle
) -> None:
    assert detect(environment) is style
