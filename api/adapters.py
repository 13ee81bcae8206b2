"""The adapters of a job: those of the catalog that it names, with weights that they allow."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import PydanticCustomError

from shared.adapters import AdapterUse
from shared.catalog import Catalog, ModelSpec
from shared.errors import FieldProblem, InvalidRequest


class AdapterChoice(BaseModel):
    """An adapter that a job shall have; its weight is the catalog's unless one is named."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    id: str
    weight: Annotated[float, Field(allow_inf_nan=False)] | None = None


def refuse_twice(choices: list[AdapterChoice]) -> list[AdapterChoice]:
    """Take a list that names no adapter twice."""
    if len({choice.id for choice in choices}) != len(choices):
        raise PydanticCustomError("repetition", "each adapter may stand once")
    return choices


def settle_adapters(
    choices: Sequence[AdapterChoice | AdapterUse], spec: ModelSpec, catalog: Catalog
) -> tuple[AdapterUse, ...]:
    """Settle the weights of a job's adapters, and put them in the order of their ids.

    Raises:
        InvalidRequest: One does not exist, was made for another model, or does not allow its
            weight; names each field, why, and what would work.
    """
    fitting = ", ".join(adapter.id for adapter in catalog.adapters_of(spec.id))
    instead = f"{spec.id} takes {fitting}" if fitting else f"there is none for {spec.id}"
    unknown = [n for n, choice in enumerate(choices) if choice.id not in catalog.adapters]
    if unknown:
        raise InvalidRequest(
            [FieldProblem(f"#/adapters/{n}/id", f"no such adapter; {instead}") for n in unknown],
            code="unknown_adapter",
        )
    problems: list[FieldProblem] = []
    uses = []
    for n, choice in enumerate(choices):
        adapter = catalog.adapters[choice.id]
        weight = adapter.weight if choice.weight is None else choice.weight
        uses.append(AdapterUse(id=adapter.id, weight=weight))
        least, most = adapter.min_weight, adapter.max_weight
        if spec.id not in adapter.models:
            made_for = ", ".join(adapter.models)
            problems.append(FieldProblem(f"#/adapters/{n}/id", f"made for {made_for}; {instead}"))
        elif not least <= weight <= most:
            detail = f"{adapter.id} takes weights from {least:g} to {most:g}"
            problems.append(FieldProblem(f"#/adapters/{n}/weight", detail))
    if problems:
        raise InvalidRequest(problems)
    return tuple(sorted(uses, key=lambda use: use.id))
