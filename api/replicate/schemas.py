"""Bodies of Replicate's API, as far as they are served."""

from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import Text
from shared.prediction import PredictionBody

WebhookEvent = Literal["start", "output", "logs", "completed"]
#: When models came is not known; the member is required.
UNKNOWN_TIME = datetime(1970, 1, 1, tzinfo=UTC)


class PredictionCreate(BaseModel):
    """A request for a prediction; the model's route needs no `version`."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, hide_input_in_errors=True)

    #: Fields of a job, diffusers' names or Replicate's; files as data: URIs or of `POST /files`.
    input: dict[Text, Any]
    version: Text | None = None
    webhook: Text | None = None
    webhook_completed: Text | None = None
    webhook_events_filter: Annotated[list[WebhookEvent], Field(min_length=1)] | None = None
    #: Every prediction has a stream.
    stream: bool | None = None


class NewPredictionBody(PredictionBody):
    """A prediction that was just made."""

    #: Inputs and fields that have had no effect.
    warnings: list[str]


class PredictionPage(BaseModel):
    """Predictions, newest first; there is no way back."""

    previous: None = None
    next: str | None
    results: list[PredictionBody]


class VersionBody(BaseModel):
    """The one version of a model: the catalog's revision."""

    id: str
    created_at: datetime = UNKNOWN_TIME
    #: Not made with Cog; from 0.3.9 on clients take a list for a list.
    cog_version: str = "1.0.0"
    openapi_schema: dict[str, Any]


class ReplicateModel(BaseModel):
    """A model of the catalog."""

    url: str
    owner: str
    name: str
    description: str
    visibility: Literal["private"] = "private"
    github_url: None = None
    paper_url: None = None
    license_url: None = None
    run_count: int = 0
    cover_image_url: None = None
    default_example: None = None
    latest_version: VersionBody


class FileUrls(BaseModel):
    """Where a file is described; inputs take it for the file."""

    get: str


class FileBody(BaseModel):
    """A picture for inputs; name and metadata are not kept."""

    id: str
    name: str
    content_type: str
    size: int
    etag: str
    checksums: dict[str, str]
    metadata: dict[str, Any] = {}
    created_at: datetime
    expires_at: None = None
    urls: FileUrls


class SigningSecret(BaseModel):
    """What messages to receivers are signed with."""

    key: str
