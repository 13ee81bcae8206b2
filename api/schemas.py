"""The body of `POST /v1/jobs`, as a client may write it."""

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from shared.request import MAX_DEADLINE_S, SEED_LIMIT
from shared.vocab import Determinism, OutputFormat, Sampler, Schedule, ServiceClass
from shared.webhook import TERMINAL_EVENTS, EventType

MAX_PROMPT_CHARACTERS = 4000
#: What PostgreSQL cannot store: NUL, and halves of characters that JSON can spell.
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


def _refuse_unstorable(text: str) -> str:
    if _UNSTORABLE.search(text):
        raise PydanticCustomError(
            "unstorable", "NUL characters and lone surrogates cannot be stored"
        )
    return text


def _refuse_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "must say something")
    return text


def _read_time(value: object) -> object:
    """Read an RFC 3339 time; pydantic alone would take numbers, and times of nowhere, too."""
    if value is None:
        return None
    if isinstance(value, str) and _RFC_3339.fullmatch(value):
        try:
            return datetime.fromisoformat(value.upper()).astimezone(UTC)
        except (ValueError, OverflowError):
            pass  # such as 31 February: the same answer
    raise PydanticCustomError("time", "must be an RFC 3339 time, such as 2030-01-31T12:00:00Z")


Text = Annotated[str, AfterValidator(_refuse_unstorable)]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_refuse_unstorable)]
#: Finite in any case: JSON knows neither NaN nor infinity, Python's parser does.
Number = Annotated[float, Field(allow_inf_nan=False)]
#: Enums arrive as text, which a strict model would not take for them.
_AS_TEXT = Field(strict=False)


def _refuse_repetition(events: list[EventType]) -> list[EventType]:
    if len(set(events)) != len(events):
        raise PydanticCustomError("repetition", "each event may stand once")
    return events


#: Which events a receiver is told of.
WebhookEvents = Annotated[
    list[Annotated[EventType, _AS_TEXT]], Field(min_length=1), AfterValidator(_refuse_repetition)
]


class WebhookCreate(BaseModel):
    """Whom to tell of what; the URL is checked by `shared.webhook`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    url: Text
    events: WebhookEvents = list(TERMINAL_EVENTS)


class JobCreate(BaseModel):
    """A request as sent: strict types, nothing unknown; null is as good as absent.

    A field of type None is one that a later version will know.
    """

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    prompt: Annotated[Prompt, AfterValidator(_refuse_blank)]
    negative_prompt: Prompt = ""
    class_label: None = None
    model: Text | None = None
    preset: Text | None = None
    sampler: Annotated[Sampler | None, _AS_TEXT] = None
    schedule: Annotated[Schedule | None, _AS_TEXT] = None
    steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance: Annotated[Number, Field(ge=1, le=50)] | None = None
    guidance_rescale: Annotated[Number, Field(ge=0, le=1)] | None = None
    seed: Annotated[int, Field(ge=0, lt=SEED_LIMIT)] | None = None
    width: Annotated[int, Field(ge=8)] | None = None
    height: Annotated[int, Field(ge=8)] | None = None
    duration_s: Annotated[Number, Field(gt=0)] | None = None
    num_outputs: Annotated[int, Field(ge=1, le=8)] = 1
    init_image: Text | None = None
    mask: Text | None = None
    strength: Annotated[Number, Field(gt=0, le=1)] | None = None
    adapters: None = None
    output_format: Annotated[OutputFormat, _AS_TEXT] = OutputFormat.PNG
    allow_undistilled: bool = False
    determinism: Annotated[Determinism, _AS_TEXT] = Determinism.FAST
    service_class: Annotated[ServiceClass, _AS_TEXT] = ServiceClass.INTERACTIVE
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    deadline_s: Annotated[int, Field(ge=1, le=MAX_DEADLINE_S)] = 86_400
    not_before: Annotated[AwareDatetime | None, BeforeValidator(_read_time)] = None
    webhook: WebhookCreate | None = None
    metadata: Annotated[dict[Text, Text], Field(max_length=16)] = {}
