"""What a job can be asked for, as the service takes it; what is left out is the preset's."""

from collections.abc import Mapping, Sequence
from typing import Required, TypedDict


class PresetFields(TypedDict, total=False):
    """Fields that presets settle too."""

    model: str
    sampler: str
    schedule: str
    steps: int
    guidance: float
    guidance_rescale: float
    width: int
    height: int
    duration_s: float
    num_outputs: int
    output_format: str
    allow_undistilled: bool


class AdapterFields(TypedDict, total=False):
    """An adapter of the catalog, and how much it changes; its own weight if none is named."""

    id: Required[str]
    weight: float


class JobFields(PresetFields, total=False):
    """Fields of a job beside its prompt."""

    negative_prompt: str
    #: What a class-conditional model shall show, by name or number, instead of a prompt.
    class_label: str | int
    preset: str
    seed: int
    #: Ids of uploads.
    init_image: str
    mask: str
    strength: float
    adapters: Sequence[AdapterFields]
    determinism: str
    service_class: str
    priority: int
    deadline_s: int
    #: An RFC 3339 time.
    not_before: str
    webhook: Mapping[str, object]
    metadata: Mapping[str, str]


class JobBody(JobFields, total=False):
    """A whole job, as one of a batch."""

    prompt: str


class SweepFields(TypedDict, total=False):
    """Values that the fields of a swept job take in turn."""

    presets: Sequence[str]
    samplers: Sequence[str]
    schedules: Sequence[str]
    steps: Sequence[int]
    guidance: Sequence[float]
    seeds: Sequence[int]


class EndpointFields(TypedDict, total=False):
    """What a receiver of messages can be told beside its URL."""

    events: Sequence[str]
    description: str


class EndpointChanges(EndpointFields, total=False):
    """What of a receiver can change."""

    url: str
    enabled: bool
