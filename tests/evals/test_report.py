import json
import re
from pathlib import Path

import pytest

from evals.report import Report, Table, describe_machine, print_tables, write_page

TABLE = Table("How fast", ("who", "seconds"), [("a|b", "1.5"), ("c", "2.0")])


def test_a_page_holds_the_question_the_tables_and_where_they_were_measured(tmp_path: Path) -> None:
    page = tmp_path / "docs" / "speed.md"
    write_page(page, "Speed", "How fast is it?", [TABLE], "python -m evals.speed --page X")
    text = page.read_text()
    assert text.startswith("# Speed\n\nHow fast is it?\n\n")
    assert "`python -m evals.speed --page X`" in text
    table = "| who | seconds |\n| :-- | --: |\n| a\\|b | 1.5 |\n| c | 2.0 |\n"
    assert f"## How fast\n\n{table}" in text
    for name, value in describe_machine().items():
        assert f"- {name}: {value}\n" in text


def test_the_machine_is_described() -> None:
    machine = describe_machine()
    assert all(machine.values())
    assert int(machine["cores"]) >= 1
    assert re.fullmatch(r"\d+ GiB", machine["memory"])
    assert machine["torch"].startswith("2.")
    assert re.fullmatch(r"[0-9a-f]{7,}(, with changes)?|unknown: .*", machine["commit"])


def test_a_table_is_shown_with_all_its_cells(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables([TABLE])
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("How fast", "who", "seconds", "a|b", "1.5", "c", "2.0"))


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="'How fast'"):
        Table("How fast", ("who", "seconds"), [("a",)])


def test_a_report_goes_where_it_was_asked_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = Report("Speed", "How fast is it?", [TABLE], {"rows": [1.5, 2.0]})
    page, figures = tmp_path / "speed.md", tmp_path / "speed.json"
    report.publish("python -m evals.speed", json_file=figures, page_file=page, quick=True)
    assert "How fast" in capsys.readouterr().out
    assert f"`python -m evals.speed --quick --page {page}`" in page.read_text()
    written = json.loads(figures.read_text())
    assert written == {"machine": dict(describe_machine()), "rows": [1.5, 2.0]}
