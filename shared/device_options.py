"""How a model is put on a device: what its catalog entry may say, in the same words for all."""

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, StrictBool, model_validator

#: What other programs offer, and why it is not here.
_BREAK_BATCHING = {
    "feature_cache": "decides for all rows at once, and each is at a step of its own",
    "guider": "hooks into layers that all jobs share",
}


class Dtype(StrEnum):
    """What a model's weights are kept in and computed with."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"


class Attention(StrEnum):
    """How the denoiser's attention is computed."""

    #: torch's fused one; torch chooses the kernel.
    FUSED = "fused"
    #: Product, softmax, product.
    EAGER = "eager"
    #: Head by head: slower, in less memory.
    SLICED = "sliced"


class DeviceOptions(BaseModel):
    """Options of a catalog entry, `[models.ID.device]`; all change the bits of results."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    dtype: Dtype = Dtype.FLOAT32
    #: Convolutions with channels innermost in memory.
    channels_last: StrictBool = False
    attention: Attention = Attention.FUSED
    #: `torch.compile` for the model's own size, once for each bucket of rows.
    compile: StrictBool = False

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_breaks_batching(cls, written: Any) -> Any:
        if isinstance(written, dict):
            for name, reason in _BREAK_BATCHING.items():
                if name in written:
                    raise ValueError(f"{name} is not served: it {reason}")
        return written

    def changed(self) -> dict[str, str | bool]:
        """Return what differs from the defaults, in the shape of the wire."""
        return self.model_dump(mode="json", exclude_defaults=True)
