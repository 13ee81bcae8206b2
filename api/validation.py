"""What the framework's validation found, in words that never repeat a value."""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from api.schemas import JobCreate
from shared.errors import FieldProblem, InvalidRequest

#: Member names that a pointer may show; another one might be a prompt in the wrong place.
_SHOWABLE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
#: Most errors that are explained one by one: a body may hold thousands, and each takes time.
MAX_EXPLAINED = 100
_PROMPTS = frozenset({"prompt", "negative_prompt"})


def explain(errors: Sequence[Mapping[str, Any]]) -> InvalidRequest:
    """Turn pydantic's errors into ours; they share a code if they all have the same."""
    explained = [_explain_one(error) for error in errors[:MAX_EXPLAINED]]
    if num_left := len(errors) - len(explained):
        explained.append(InvalidRequest([FieldProblem("#", f"and {num_left:,} more")]))
    return InvalidRequest.join(explained)


def explain_body(error: ValidationError) -> InvalidRequest:
    """Turn the errors of a body that was validated by hand into ours."""
    found = error.errors(include_url=False)
    return explain([{**one, "loc": ("body", *one["loc"])} for one in found])


def is_showable(name: str) -> bool:
    """Whether the name of a member may be repeated to its sender."""
    return _SHOWABLE.fullmatch(name) is not None


def _explain_one(error: Mapping[str, Any]) -> InvalidRequest:
    # The first part says where the field stood: body, query, header.
    path = [str(part) for part in error["loc"][1:] if part != "[key]"]
    code, detail = "invalid_request", str(error["msg"])
    match error["type"]:
        case "missing":
            detail = "this field is required"
        case "extra_forbidden":
            detail = _name_likely(path[-1])
        case "string_unicode":
            detail = "a name with a lone surrogate is no text"
        case "string_too_long" if path[-1] in _PROMPTS:
            code = "prompt_too_long"
            limit = error["ctx"]["max_length"]
            detail = f"has {len(error['input']):,} characters; at most {limit:,} work"
        case "model_attributes_type":
            detail = "the body must be a JSON object"
    return InvalidRequest([FieldProblem(_point(path), detail)], code=code)


def _point(path: Sequence[str]) -> str:
    """Write a JSON Pointer, as far as its names may be shown."""
    pointer = "#"
    for part in path:
        if not is_showable(part):
            break
        pointer += f"/{part}"
    return pointer


def _name_likely(name: str) -> str:
    if name in JobCreate.model_fields:
        return "unknown here; it is a field of a job"
    likely = difflib.get_close_matches(name, JobCreate.model_fields, n=1)
    return f"unknown field; did you mean {likely[0]}?" if likely else "unknown field"
