"""`python -m evals.catalog_page`: write the page of a catalog's fields, from the code."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, get_args

import typer
from pydantic.fields import FieldInfo

from evals.report import Table, render_page
from shared.catalog_entry import ModelEntry, PresetValues
from shared.device_options import DeviceOptions

PAGE = Path("docs/reference/catalog.md")
TITLE = "The catalog"
QUESTION = """\
What can an installation say of its models? A catalog is a TOML file: `default`, the id of a model,
and a table `[models.ID]` for each with these fields. `LATENTQ_CATALOG` names it, for the API, the
dispatcher and all workers alike. An id has up to 64 small letters, digits, `.`, `_` and `-`. What
is unknown, or contradicts itself or the model's files, is refused when a process starts, with the
field and what would work. [How to serve several models](../how-to/serve-several-models.md)."""
COLUMNS = ("field", "what it says", "values", "if it is left out")


def main(output: Annotated[Path, typer.Option(help="Where to write it.")] = PAGE) -> None:
    """Write the page."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(render())
    print(f"wrote {output}")  # noqa: T201


def render() -> str:
    """Write the whole page as markdown."""
    rows = [
        (f"`{name}`", field.description or "", _values_of(name, field), _default_of(field))
        for name, field in ModelEntry.model_fields.items()
    ]
    table = Table("Fields of `[models.ID]`", COLUMNS, rows, num_names=len(COLUMNS))
    return render_page(TITLE, QUESTION, [table], "python -m evals.catalog_page")


def _values_of(name: str, field: FieldInfo) -> str:
    if name == "presets":
        return f"tables `[models.ID.presets.NAME]` of {', '.join(PresetValues.model_fields)}"
    if name == "device":
        names = ", ".join(DeviceOptions.model_fields)
        return f"a table `[models.ID.device]` of [{names}](../how-to/device-options.md)"
    kinds = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    kind = kinds[0] if kinds else field.annotation
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return ", ".join(f"`{value}`" for value in kind)
    limits = [
        f"{word} {getattr(limit, side)}"
        for limit in field.metadata
        for side, word in (("ge", "at least"), ("gt", "above"), ("le", "at most"))
        if hasattr(limit, side)
    ]
    return ", ".join(limits) or ("true, false" if kind is bool else "text")


def _default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "refused"
    match field.default:
        case None | "" | {} | DeviceOptions():
            return ""
        case bool():
            return str(field.default).lower()
    return f"`{field.default}`"


if __name__ == "__main__":
    typer.run(main)
