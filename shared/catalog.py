"""What models exist and what they allow, read from `catalog.toml` and the models' own folders.

Which of them are loaded is a fact of a worker, not of the catalog.
"""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from pydantic import ValidationError

from shared.adapters import AdapterSpec, read_adapters
from shared.catalog_entry import MODEL_ID, CatalogFile, ModelEntry, PresetValues, explain
from shared.device_options import DeviceOptions
from shared.errors import ConfigurationError, HubUnavailable
from shared.hub import Hub
from shared.model_facts import ModelFacts
from shared.model_folder import read_folder
from shared.schedule import TrainingSchedule
from shared.sound import SoundSpec
from shared.vocab import GuidanceForm, Medium, PredictionType, Process


@dataclass(frozen=True)
class ModelSpec:
    """One model: where it lies, what it is, what it allows."""

    id: str
    path: Path
    #: The hub repository that it comes from, if it does.
    repo: str | None
    description: str
    revision: str
    family: str
    medium: Medium
    process: Process
    prediction_type: PredictionType
    training: TrainingSchedule
    #: Whether it was distilled to jump to the end of a trajectory from anywhere on it.
    is_distilled: bool
    #: Steps that distillation visited; consistency sampling takes its timesteps from theirs.
    teacher_steps: int
    #: Pixels per latent cell, along each side; of sounds samples, along time.
    latent_factor: int
    #: Of pictures; 0 for sounds.
    width: int
    height: int
    max_width: int
    max_height: int
    #: What its sounds are; None for pictures.
    sound: SoundSpec | None
    #: Tokens the text encoder takes, start and end marks included; 0 without one.
    max_tokens: int
    #: Folders of the tokenizers that count them.
    tokenizers: tuple[str, ...]
    guidance: GuidanceForm
    #: Pixels of which sizes are multiples: those of what the denoiser takes as one.
    size_step: int
    #: Whether its levels depend on a picture's size.
    shifts_by_size: bool
    #: What a class-conditional model is told instead of a prompt: numbers by their names; None for
    #: others.
    labels: Mapping[str, int] | None
    takes_adapters: bool
    #: Whether jobs of it can start from a picture.
    starts_from_pictures: bool
    #: Whether its pictures have `width` and `height` and no other size.
    has_one_size: bool
    #: Folders of its networks, where its family does not say which those are.
    parts: tuple[str, ...]
    exact_rows: int
    max_rows: int
    device_options: DeviceOptions
    presets: Mapping[str, PresetValues]

    @property
    def guides_by_rows(self) -> bool:
        """Whether guidance takes a second row in each forward; a pipeline's call is one always."""
        return self.guidance is GuidanceForm.CLASSIFIER_FREE and not self.parts


@dataclass(frozen=True)
class Catalog:
    """All models of an installation, and the adapters for them."""

    default: str
    models: Mapping[str, ModelSpec]
    adapters: Mapping[str, AdapterSpec] = field(default_factory=dict)

    def __iter__(self) -> Iterator[ModelSpec]:
        return iter(self.models.values())

    def get(self, model_id: str) -> ModelSpec | None:
        """Return a model by its id, or None."""
        return self.models.get(model_id)

    def adapters_of(self, model_id: str) -> list[AdapterSpec]:
        """Return the adapters that were made for a model."""
        return [spec for spec in self.adapters.values() if model_id in spec.models]

    @classmethod
    def load(cls, path: Path, *, hub: Hub | None = None) -> "Catalog":
        """Read a catalog file; relative model paths start at its folder.

        Without a hub, models that come from one are refused.

        Raises:
            ConfigurationError: The file or one of its models cannot be used; says which and why.
        """
        try:
            file = CatalogFile.model_validate(tomllib.loads(path.read_text()))
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"catalog {path}: {_first_line(error)}") from error
        models = {}
        for model_id, entry in file.models.items():
            if not MODEL_ID.match(model_id):
                raise ConfigurationError(
                    f"catalog {path}: model id {model_id!r} is not [a-z0-9._-]"
                )
            models[model_id] = _read_model(model_id, entry, root=path.parent, hub=hub)
        if file.default not in models:
            raise ConfigurationError(
                f"catalog {path}: default {file.default!r} is not among its models"
            )
        adapters = read_adapters(file.adapters, models=models, root=path.parent)
        for adapter in adapters.values():
            for model_id in adapter.models:
                if not models[model_id].takes_adapters:
                    raise ConfigurationError(
                        f"adapter {adapter.id}: {model_id} takes none; models of the families "
                        "that do have takes_adapters in GET /v1/models"
                    )
        return cls(default=file.default, models=models, adapters=adapters)


def _read_model(model_id: str, entry: ModelEntry, *, root: Path, hub: Hub | None) -> ModelSpec:
    folder = _find_folder(model_id, entry, root=root, hub=hub)
    try:
        facts = read_folder(model_id, folder, family=entry.family)
        _check_family(model_id, facts, entry)
        _check_extent(model_id, facts, entry)
        _check_sizes(model_id, entry, facts)
        _check_options(model_id, facts, entry)
        # A call is a row of its own.
        exact_rows, max_rows = (1, 1) if facts.parts else (entry.exact_rows, entry.max_rows)
        return ModelSpec(
            id=model_id,
            path=folder,
            repo=entry.repo,
            description=entry.description,
            revision=entry.revision,
            family=facts.family,
            medium=facts.medium,
            process=facts.process,
            prediction_type=facts.prediction_type,
            training=facts.training,
            is_distilled=entry.distilled or facts.is_distilled,
            teacher_steps=facts.teacher_steps,
            latent_factor=facts.latent_factor,
            width=entry.width or facts.side,
            height=entry.height or facts.side,
            max_width=entry.max_width or facts.side,
            max_height=entry.max_height or facts.side,
            sound=None if facts.sound is None else _limit(model_id, facts.sound, entry),
            max_tokens=facts.max_tokens,
            tokenizers=facts.tokenizers,
            guidance=facts.guidance,
            size_step=facts.size_step,
            shifts_by_size=facts.shifts_by_size,
            labels=facts.labels,
            takes_adapters=facts.takes_adapters,
            starts_from_pictures=facts.starts_from_pictures,
            has_one_size=facts.has_one_size,
            parts=facts.parts,
            exact_rows=exact_rows,
            max_rows=max(max_rows, exact_rows),
            device_options=entry.device,
            presets=entry.presets,
        )
    except (OSError, ValueError, KeyError) as error:
        raise ConfigurationError(f"model {model_id} in {folder}: {_first_line(error)}") from error


def _find_folder(model_id: str, entry: ModelEntry, *, root: Path, hub: Hub | None) -> Path:
    if entry.path is not None:
        return (root / entry.path).resolve()
    if hub is None or entry.repo is None:
        raise ConfigurationError(f"model {model_id}: there is no folder for models from a hub")
    try:
        return hub.fetch_description(entry.repo, entry.revision)
    except HubUnavailable as error:
        raise ConfigurationError(f"model {model_id}: {error.detail}") from error


def _check_family(model_id: str, facts: ModelFacts, entry: ModelEntry) -> None:
    if entry.family not in (None, facts.family):
        raise ConfigurationError(
            f"model {model_id}: family is {entry.family!r}, but its files are those of a "
            f"{facts.pipeline}; {facts.family!r} runs it, and family may be left out"
        )
    if entry.medium not in (None, facts.medium):
        raise ConfigurationError(
            f"model {model_id}: medium is {entry.medium.value!r}, but {facts.family} models make "
            f"{facts.medium.value!r}; medium may be left out"
        )


def _check_options(model_id: str, facts: ModelFacts, entry: ModelEntry) -> None:
    for name in entry.device.changed():
        if name not in facts.device_options:
            served = ", ".join(sorted(facts.device_options))
            raise ConfigurationError(
                f"model {model_id}: device.{name} is not served with {facts.family} models, "
                f"which have {served}; leave it out"
            )


def _check_extent(model_id: str, facts: ModelFacts, entry: ModelEntry) -> None:
    """See that an entry says nothing of pictures where a model makes sounds, or the reverse."""
    picture = ("width", "height", "max_width", "max_height")
    for name in ("duration_s", "max_duration_s") if facts.sound is None else picture:
        if getattr(entry, name) is not None:
            raise ConfigurationError(
                f"model {model_id}: {facts.family} models make {facts.medium.value!r}, which has "
                f"no {name}; leave it out"
            )


def _check_sizes(model_id: str, entry: ModelEntry, facts: ModelFacts) -> None:
    """See that a picture of the default size can be asked for, and one of any that is allowed."""
    step = facts.size_step
    for name in ("width", "height"):
        default = getattr(entry, name) or facts.side
        most = getattr(entry, f"max_{name}") or facts.side
        if facts.has_one_size and (default, most) != (facts.side, facts.side):
            raise ConfigurationError(
                f"model {model_id}: {facts.family} models make one size, here {facts.side}; leave "
                f"{name} and max_{name} out"
            )
        if default % step:
            raise ConfigurationError(
                f"model {model_id}: {name} {default} is no multiple of {step}, the pixels of "
                f"a latent's cell; {default - default % step} is"
            )
        if facts.max_side is not None and most > facts.max_side:
            raise ConfigurationError(
                f"model {model_id}: max_{name} {most} is above the {facts.max_side} pixels that "
                "its denoiser has positions for; lower it"
            )
        if default > most:
            raise ConfigurationError(
                f"model {model_id}: max_{name} {most} is below the {default} pixels that it was "
                f"made for; raise it, or give a smaller {name}"
            )


def _limit(model_id: str, sound: SoundSpec, entry: ModelEntry) -> SoundSpec:
    """Put what an entry says of durations into what a model's files say."""
    most = entry.max_duration_s or sound.max_duration_s
    default = entry.duration_s or min(sound.duration_s, most)
    if sound.length is not None and most > sound.max_duration_s:
        raise ConfigurationError(
            f"model {model_id}: max_duration_s {most:g} is more than its latents hold; "
            f"{sound.max_duration_s:g} is the most"
        )
    if not sound.min_duration_s <= default <= most:
        raise ConfigurationError(
            f"model {model_id}: duration_s {default:g} is not within its {sound.min_duration_s:g} "
            f"to {most:g} seconds"
        )
    return replace(sound, duration_s=default, max_duration_s=most)


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return explain(error)
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error).splitlines()[0]
