from html.parser import HTMLParser
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from cli.contact_sheet import Cell, write_contact_sheet


class Reader(HTMLParser):
    """Reads a table back: its rows of texts and pictures."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.title = ""
        self._is_title = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        match tag:
            case "tr":
                self.rows.append([])
            case "td" | "th":
                self.rows[-1].append("")
            case "img" | "audio":
                self.rows[-1][-1] += f"[{values['src']}]"
            case "h1":
                self._is_title = True

    def handle_endtag(self, tag: str) -> None:
        self._is_title = self._is_title and tag != "h1"

    def handle_data(self, data: str) -> None:
        if self._is_title:
            self.title += data
        elif self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip("\n")


def cell(note: str = "", **coordinates: str | int | float) -> Cell:
    return Cell(coordinates, [] if note else [Path("x/1-0.png")], note)


def test_the_last_field_that_varies_lies_across() -> None:
    cells = [
        cell(sampler="euler", steps=3, guidance=2.0),
        cell(sampler="euler", steps=8, guidance=2.0),
        cell(sampler="heun", steps=3, guidance=2.0),
        cell("no <b>such</b>", sampler="heun", steps=8, guidance=2.0),
    ]
    head, euler, heun = Reader(write_contact_sheet(cells, "a star")).rows
    assert head == ["", "steps 3", "steps 8"]
    assert euler == ["sampler euler, guidance 2.0", "[1-0.png]", "[1-0.png]"]
    assert heun[2] == "no <b>such</b>"


def test_sounds_are_played_and_pictures_shown() -> None:
    cells = [Cell({}, [Path(f"x/{name}") for name in ("1-0.wav", "1-1.flac", "1-2.png")], "")]
    page = write_contact_sheet(cells, "x")
    assert Reader(page).rows[1][-1] == "[1-0.wav][1-1.flac][1-2.png]"
    assert (page.count("<audio controls"), page.count("<img")) == (2, 1)


def test_a_single_job_has_a_page_too() -> None:
    assert Reader(write_contact_sheet([cell(steps=3)], "x")).rows == [
        ["", "steps 3"],
        ["", "[1-0.png]"],
    ]
    assert len(Reader(write_contact_sheet([cell()], "x")).rows) == 2


@given(st.text().filter(lambda text: "\r" not in text and "\0" not in text))
def test_a_prompt_is_shown_as_it_is(prompt: str) -> None:
    assert Reader(write_contact_sheet([cell(steps=3)], prompt)).title == prompt
