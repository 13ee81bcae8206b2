"""The body of `POST /v1/jobs`, as a client may write it."""

import re
from datetime import UTC, datetime
from typing import Annotated, TypeVar

from pydantic import AfterValidator, AwareDatetime, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from api.adapters import AdapterChoice, refuse_twice
from shared.adapters import MAX_ADAPTERS
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


def refuse_other_times(value: object) -> object:
    """Take a time as RFC 3339 writes it; pydantic alone would take numbers, too."""
    if value is None or (isinstance(value, str) and _RFC_3339.fullmatch(value)):
        return value
    raise _no_time()


def _read_time(value: object) -> object:
    """Read an RFC 3339 time; pydantic alone would take times of nowhere, too."""
    if isinstance(refuse_other_times(value), str):
        try:
            return datetime.fromisoformat(str(value).upper()).astimezone(UTC)
        except (ValueError, OverflowError) as error:
            raise _no_time() from error  # such as 31 February
    return value


def _no_time() -> PydanticCustomError:
    return PydanticCustomError("time", "must be an RFC 3339 time, such as 2030-01-31T12:00:00Z")


Text = Annotated[str, AfterValidator(_refuse_unstorable)]
Prompt = Annotated[str, Field(max_length=MAX_PROMPT_CHARACTERS), AfterValidator(_refuse_unstorable)]
#: Finite in any case: JSON knows neither NaN nor infinity, Python's parser does.
Number = Annotated[float, Field(allow_inf_nan=False)]
#: Enums arrive as text, which a strict model would not take for them.
AsText = Field(strict=False)
Steps = Annotated[int, Field(ge=1, le=1000)]
Guidance = Annotated[Number, Field(ge=1, le=50)]
Rescale = Annotated[Number, Field(ge=0, le=1)]
Side = Annotated[int, Field(ge=8)]
Duration = Annotated[Number, Field(gt=0)]
NumOutputs = Annotated[int, Field(ge=1, le=8)]
Seed = Annotated[int, Field(ge=0, lt=SEED_LIMIT)]

ValueT = TypeVar("ValueT")


def refuse_repetition(values: list[ValueT]) -> list[ValueT]:
    """Take a list whose values all differ."""
    if len(set(values)) != len(values):
        raise PydanticCustomError("repetition", "each value may stand once")
    return values


#: Which events a receiver is told of.
WebhookEvents = Annotated[
    list[Annotated[EventType, AsText]], Field(min_length=1), AfterValidator(refuse_repetition)
]


class WebhookCreate(BaseModel):
    """Whom to tell of what; the URL is checked by `shared.webhook`."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    url: Text
    events: WebhookEvents = list(TERMINAL_EVENTS)


class JobCreate(BaseModel):
    """A request as sent: strict types, nothing unknown; null is as good as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    prompt: Annotated[Prompt, AfterValidator(_refuse_blank)] | None = None
    negative_prompt: Prompt = ""
    class_label: Annotated[int, Field(ge=0)] | Text | None = None
    model: Text | None = None
    preset: Text | None = None
    sampler: Annotated[Sampler | None, AsText] = None
    schedule: Annotated[Schedule | None, AsText] = None
    steps: Steps | None = None
    guidance: Guidance | None = None
    guidance_rescale: Rescale | None = None
    seed: Seed | None = None
    width: Side | None = None
    height: Side | None = None
    duration_s: Duration | None = None
    num_outputs: NumOutputs = 1
    init_image: Text | None = None
    mask: Text | None = None
    strength: Annotated[Number, Field(gt=0, le=1)] | None = None
    adapters: (
        Annotated[list[AdapterChoice], Field(max_length=MAX_ADAPTERS), AfterValidator(refuse_twice)]
        | None
    ) = None
    #: Without one png of a picture, wav of a sound.
    output_format: Annotated[OutputFormat | None, AsText] = None
    allow_undistilled: bool = False
    determinism: Annotated[Determinism, AsText] = Determinism.FAST
    service_class: Annotated[ServiceClass, AsText] = ServiceClass.INTERACTIVE
    priority: Annotated[int, Field(ge=0, le=9)] = 5
    deadline_s: Annotated[int, Field(ge=1, le=MAX_DEADLINE_S)] = 86_400
    not_before: Annotated[AwareDatetime | None, BeforeValidator(_read_time)] = None
    webhook: WebhookCreate | None = None
    metadata: Annotated[dict[Text, Text], Field(max_length=16)] = {}
