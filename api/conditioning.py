"""What a job shall show: a prompt, or a label of a model that knows no prompts."""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from api.schemas import JobCreate
from api.tokens import TokenCounter
from shared.catalog import ModelSpec
from shared.errors import FieldProblem, InvalidRequest

#: Labels that a refusal names; a model may have a thousand.
MAX_NAMED = 8


@dataclass(frozen=True, slots=True)
class Subject:
    """What a job shall show, and keep away from."""

    prompt: str | None
    negative_prompt: str
    class_label: int | None


def settle_subject(body: JobCreate, spec: ModelSpec, tokens: TokenCounter) -> Subject:
    """Check what a body says of what its job shall show, in the way its model is told.

    Raises:
        InvalidRequest: The model is told otherwise, or does not take it; says what it does.
    """
    if spec.labels is not None:
        label = _settle_label(body, spec, spec.labels)
        return Subject(prompt=None, negative_prompt="", class_label=label)
    if body.class_label is not None:
        raise InvalidRequest(
            [FieldProblem("#/class_label", f"{spec.id} knows no labels; it takes a prompt")]
        )
    if body.prompt is None:
        raise InvalidRequest([FieldProblem("#/prompt", "this field is required")])
    _check_lengths(body.prompt, body.negative_prompt, spec, tokens)
    return Subject(prompt=body.prompt, negative_prompt=body.negative_prompt, class_label=None)


def _settle_label(body: JobCreate, spec: ModelSpec, labels: Mapping[str, int]) -> int:
    problems = [
        FieldProblem(f"#/{name}", f"{spec.id} reads no text; it takes a class_label instead")
        for name in ("prompt", "negative_prompt")
        if getattr(body, name)
    ]
    label, number = body.class_label, None
    if label is None:
        problems.append(FieldProblem("#/class_label", f"{spec.id} needs one: {_name(labels)}"))
    else:
        number = _find(label, labels)
        if number is None:
            problems.append(FieldProblem("#/class_label", "".join(_explain(label, spec, labels))))
    if problems or number is None:
        raise InvalidRequest(problems)
    return number


def _find(label: str | int, labels: Mapping[str, int]) -> int | None:
    """Return the number of a label that is called by its name or its number."""
    if isinstance(label, str) and label in labels:
        return labels[label]
    written = str(label)
    numbers = {str(number): number for number in labels.values()}
    return numbers.get(written)


def _explain(label: str | int, spec: ModelSpec, labels: Mapping[str, int]) -> Iterator[str]:
    yield f"{spec.id} has no such label"
    likely = difflib.get_close_matches(str(label), labels, n=1)
    yield f"; did you mean {likely[0]}?" if likely else f"; there are {_name(labels)}"


def _name(labels: Mapping[str, int]) -> str:
    named = ", ".join(f"{name} ({number})" for name, number in list(labels.items())[:MAX_NAMED])
    more = len(labels) - MAX_NAMED
    return f"{named} and {more} more, which GET /v1/models lists" if more > 0 else named


def _check_lengths(
    prompt: str, negative_prompt: str, spec: ModelSpec, tokens: TokenCounter
) -> None:
    texts = {"prompt": prompt, "negative_prompt": negative_prompt}
    counts = {name: tokens.count(spec.id, text) for name, text in texts.items()}
    problems = [
        FieldProblem(
            f"#/{name}",
            f"has {count} tokens, start and end marks included; "
            f"{spec.id} takes at most {spec.max_tokens}",
        )
        for name, count in counts.items()
        if count > spec.max_tokens
    ]
    if problems:
        raise InvalidRequest(problems, code="prompt_too_long")
