import re
from pathlib import Path

from evals.settings_page import GROUPS, PAGE, READERS, render, variable_of
from shared.environment import PREFIX, Settings

ROOT = Path(__file__).parents[2]
#: A variable that is named in full: `LATENTQ_S3_...` names several.
_VARIABLE = re.compile(rf"{PREFIX}[A-Z0-9_]+(?![\w]|\.\.\.)")
#: Where variables are named for whoever runs LatentQ.
NAMING = [
    ROOT / "README.md",
    ROOT / "docker-compose.yml",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted(path for path in (ROOT / "deploy").rglob("*") if path.is_file()),
]


def all_settings() -> set[type[Settings]]:
    """Every class of settings that there is."""
    found: set[type[Settings]] = set()
    waiting = [Settings]
    while waiting:
        classes = waiting.pop().__subclasses__()
        found.update(classes)
        waiting += classes
    return found


def all_variables() -> set[str]:
    return {
        variable_of(name, field)
        for settings in all_settings()
        for name, field in settings.model_fields.items()
    }


def test_the_committed_page_is_what_the_settings_say_now() -> None:
    assert (ROOT / PAGE).read_text() == render(), "run python -m evals.settings_page"


def test_every_variable_has_one_row_that_says_what_it_is() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.*?) \|", render().partition("## Of the lib")[0], re.M)
    names = [name for name, _ in rows]
    assert len(names) == len(set(names)) > 30
    assert set(names) == all_variables()
    assert all(meaning.endswith(".") for _, meaning in rows)


def test_every_class_of_settings_is_a_group_or_is_read_by_somebody() -> None:
    assert all_settings() == {*GROUPS.values(), *READERS.values()}


def test_whatever_names_a_variable_names_one_that_there_is() -> None:
    compose = set(re.findall(r"\$\{(\w+)", (ROOT / "docker-compose.yml").read_text()))
    known = all_variables() | compose
    named = 0
    for path in NAMING:
        for name in _VARIABLE.findall(path.read_text()):
            named += 1
            assert name.removesuffix("_FILE") in known, f"{path.relative_to(ROOT)}: {name}"
    assert named > 100
