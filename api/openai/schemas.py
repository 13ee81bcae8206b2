"""Bodies of OpenAI's Images API, as far as they are served."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas import Text

ResponseFormat = Literal["b64_json", "url"]


class ImageCreate(BaseModel):
    """A request for pictures.

    Fields of a job and diffusers' `num_inference_steps` and `guidance_scale` are taken too; what is
    not known, or not supported, is ignored and listed in `warnings`.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, hide_input_in_errors=True)

    prompt: Text
    model: Text | None = None
    n: int | None = None
    #: `WIDTHxHEIGHT`, or `auto` for the model's own.
    size: Text | None = None
    response_format: ResponseFormat | None = None
    output_format: Text | None = None
    stream: bool | None = None
    #: How many pictures of a stream may show one that is not done; fewer come of a quick job.
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None

    @property
    def others(self) -> dict[str, Any]:
        """What came besides."""
        return self.model_extra or {}


class ImageBody(BaseModel):
    """One picture, as its bytes in base64 or as a link, and the seed that makes it again."""

    b64_json: str | None = None
    url: str | None = None
    revised_prompt: None = None
    seed: int


class ImagesBody(BaseModel):
    """Pictures, and the job that made them."""

    created: int
    data: list[ImageBody]
    output_format: str
    size: str
    job_id: str
    #: Fields that have had no effect.
    warnings: list[str]


class TokenDetails(BaseModel):
    """Tokens by kind."""

    text_tokens: int = 0
    image_tokens: int = 0


class Usage(BaseModel):
    """Tokens of the request: none are counted here."""

    input_tokens: int = 0
    output_tokens: int = 0
    total_tokens: int = 0
    input_tokens_details: TokenDetails = TokenDetails()


class CompletedEvent(BaseModel):
    """One finished picture of a stream."""

    type: str
    index: int
    b64_json: str
    created_at: int
    background: str = "opaque"
    output_format: str
    quality: str = "auto"
    size: str
    usage: Usage = Usage()
    seed: int
    job_id: str
    warnings: list[str]


class PartialEvent(BaseModel):
    """A rough, small picture of one that is not done."""

    type: str
    index: int
    partial_image_index: int
    b64_json: str
    created_at: int
    background: str = "opaque"
    output_format: str = "webp"
    quality: str = "auto"
    size: str


class OpenAiModel(BaseModel):
    """A model of the catalog."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "latentq"


class OpenAiModelList(BaseModel):
    """All models of this installation."""

    object: Literal["list"] = "list"
    data: list[OpenAiModel]
