"""What the holder of an API key may do, and how much of it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field


class Scope(StrEnum):
    """A kind of request; every route asks for one."""

    MODELS_READ = "models:read"
    JOBS_READ = "jobs:read"
    JOBS_WRITE = "jobs:write"
    UPLOADS_WRITE = "uploads:write"
    PRESETS_WRITE = "presets:write"
    WEBHOOKS_READ = "webhooks:read"
    WEBHOOKS_WRITE = "webhooks:write"
    #: The tenant's keys, and all the others with it.
    ADMIN = "admin"


ALL_SCOPES = frozenset(Scope)
#: Of a key for which nobody chose.
DEFAULT_SCOPES = ALL_SCOPES - {Scope.ADMIN}

#: How long a key or a signing secret is valid beside the one that replaced it, in seconds.
OVERLAP_S = 86_400

#: What an integer column holds.
_Count = Annotated[int, Field(ge=1, le=2**31 - 1)]


class KeyLimits(BaseModel):
    """What a key may take; None is any number."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    requests_per_minute: _Count | None = None
    #: Jobs that have not ended, queued and running together.
    max_active: _Count | None = None
    max_queued: _Count | None = None
    #: Of a day in UTC; deleting or canceling jobs gives nothing back.
    daily_megapixel_iterations: (
        Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)] | None
    ) = None
    #: Ids of the catalog.
    models: Annotated[list[str], Field(min_length=1, max_length=100)] | None = None
    max_width: _Count | None = None
    max_height: _Count | None = None
    #: Of a sound, in seconds.
    max_duration_s: Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)] | None = None
    max_steps: _Count | None = None
    max_num_outputs: _Count | None = None

    @property
    def counts_jobs(self) -> bool:
        """Whether a submission has to look at the key's other jobs."""
        counted = (self.max_active, self.max_queued, self.daily_megapixel_iterations)
        return any(limit is not None for limit in counted)


NO_LIMITS = KeyLimits()


@dataclass(frozen=True, slots=True)
class KeyTerms:
    """What a key is made with."""

    scopes: frozenset[Scope] = DEFAULT_SCOPES
    limits: KeyLimits = NO_LIMITS
    #: From its making on, in seconds; None is for ever.
    expires_in_s: int | None = None
