"""Fields of other APIs on their way into a job's."""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from api.schemas import JobCreate
from api.validation import explain_body, is_showable
from shared.errors import FieldProblem, InvalidRequest

#: What diffusers' pipelines call fields of ours.
DIFFUSERS_NAMES = {"num_inference_steps": "steps", "guidance_scale": "guidance"}
#: Ignored fields that are named one by one.
MAX_NAMED = 20


class Translation:
    """A job's body in the making, and what its fields were called by the client.

    `pointer` is where the fields stand in what was sent; `strict` is False for those of a form,
    which are all text.
    """

    def __init__(self, pointer: str = "#", *, strict: bool = True) -> None:
        self._pointer = pointer
        self._strict = strict
        self._values: dict[str, Any] = {}
        self._names: dict[str, str] = {}
        self._problems: list[FieldProblem] = []
        self._ignored: list[str] = []

    def put(self, name: str, value: Any, *, said_as: str | None = None) -> None:
        """Set a field of the job; null is as good as absent.

        `said_as` is its name where the fields stand, or the pointer of one that stands elsewhere.
        """
        said_as = said_as or name
        if value is None:
            return
        if name in self._values and self._values[name] != value:
            self.refuse(said_as, f"contradicts {self._names[name]}; send one of them")
            return
        self._values[name] = value
        self._names.setdefault(name, said_as)

    def put_all(
        self, fields: Mapping[str, Any], *, names: Mapping[str, str] = DIFFUSERS_NAMES
    ) -> None:
        """Set all fields that are ours or have one of these names; note the others as ignored."""
        for said_as, value in fields.items():
            name = names.get(said_as, said_as)
            if name not in JobCreate.model_fields:
                self.ignore(said_as)
            elif said_as == "guidance_scale":
                self.put(name, _translate_scale(value, strict=self._strict), said_as=said_as)
            else:
                self.put(name, value, said_as=said_as)

    def ignore(self, said_as: str) -> None:
        """Note that a field has no effect."""
        self._ignored.append(said_as)

    def refuse(self, said_as: str, detail: str) -> None:
        """Note that a field cannot stay as it is."""
        self._problems.append(FieldProblem(self._point(said_as), detail))

    def read(self) -> JobCreate:
        """Return the job's body.

        Raises:
            InvalidRequest: It is not valid; names the fields as the client did.
        """
        if self._problems:
            raise InvalidRequest(self._problems)
        try:
            return JobCreate.model_validate(self._values, strict=self._strict)
        except ValidationError as error:
            raise self.rename(explain_body(error)) from error

    def rename(self, refusal: InvalidRequest) -> InvalidRequest:
        """Return a refusal of the job's body as one of what the client sent."""
        return InvalidRequest(
            [FieldProblem(self._rename(p.pointer), p.detail) for p in refusal.problems],
            code=refusal.code,
        )

    def warnings(self) -> list[str]:
        """Say which fields have had no effect; never their values."""
        shown = [name for name in self._ignored if is_showable(name)][:MAX_NAMED]
        warnings = [f"{name} is not supported here and was ignored" for name in shown]
        if num_left := len(self._ignored) - len(shown):
            warnings.append(f"{num_left:,} more fields were ignored")
        return warnings

    def _rename(self, pointer: str) -> str:
        _, *path = pointer.split("/")
        if not path:
            return self._pointer
        return "/".join([self._point(self._names.get(path[0], path[0])), *path[1:]])

    def _point(self, said_as: str) -> str:
        return said_as if said_as.startswith("#") else f"{self._pointer}/{said_as}"


def _translate_scale(value: Any, *, strict: bool) -> Any:
    """Turn a scale of diffusers into ours: all up to 1 mean the same there, none."""
    if not strict and isinstance(value, str):
        try:
            value = float(value)
        except ValueError:
            return value  # refused as what it is
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return 1.0 if is_number and 0 <= value < 1 else value
