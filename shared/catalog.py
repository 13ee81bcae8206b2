"""What models exist and what they allow, read from `catalog.toml` and the models' own folders.

Which of them are loaded is a fact of a worker, not of the catalog.
"""

import json
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from shared.adapters import AdapterSpec, read_adapters
from shared.catalog_entry import MODEL_ID, CatalogFile, ModelEntry, PresetValues, explain
from shared.device_options import DeviceOptions
from shared.errors import ConfigurationError, HubUnavailable
from shared.hub import Hub
from shared.schedule import TrainingSchedule
from shared.vocab import Medium, PredictionType, Process

#: `_class_name` of a model_index.json, and the family of ours that runs it.
FAMILIES = {"StableDiffusionPipeline": "stable_diffusion"}
#: What the models of a family make.
MEDIA = {"stable_diffusion": Medium.IMAGE}
#: Scheduler classes that a folder names if its model is none of the usual diffusion.
_PROCESSES = {
    "FlowMatchEulerDiscreteScheduler": Process.FLOW,
    "FlowMatchHeunDiscreteScheduler": Process.FLOW,
    "EDMDPMSolverMultistepScheduler": Process.EDM,
    "EDMEulerScheduler": Process.EDM,
}
#: Scheduler classes that a folder names if its model was distilled for them.
_CONSISTENCY_SCHEDULERS = frozenset({"LCMScheduler", "TCDScheduler"})
#: Steps of the teacher that a model was distilled from, as diffusers has it.
DEFAULT_TEACHER_STEPS = 50


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
    #: Pixels per latent cell, along each side.
    latent_factor: int
    width: int
    height: int
    max_width: int
    max_height: int
    #: Tokens the text encoder takes, start and end marks included.
    max_tokens: int
    exact_rows: int
    max_rows: int
    device_options: DeviceOptions
    presets: Mapping[str, PresetValues]


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
        return cls(default=file.default, models=models, adapters=adapters)


def _read_model(model_id: str, entry: ModelEntry, *, root: Path, hub: Hub | None) -> ModelSpec:
    folder = _find_folder(model_id, entry, root=root, hub=hub)
    try:
        pipeline = _read_json(folder / "model_index.json")["_class_name"]
        family = _find_family(model_id, pipeline, entry)
        scheduler = _read_json(folder / "scheduler" / "scheduler_config.json")
        vae = _read_json(folder / "vae" / "config.json")
        unet = _read_json(folder / "unet" / "config.json")
        _check_channels(model_id, unet=unet, vae=vae)
        text_encoder = _read_json(folder / "text_encoder" / "config.json")
        _check_process(model_id, pipeline, scheduler)
        training = _read_training(model_id, scheduler)
        if unet.get("time_cond_proj_dim") is not None:
            raise ConfigurationError(
                f"model {model_id}: a denoiser that is told its guidance (time_cond_proj_dim) "
                "is not served; distilled models without that are"
            )
        factor = 2 ** (len(vae["block_out_channels"]) - 1)
        side = unet["sample_size"] * factor
        _check_sizes(model_id, entry, factor=factor, side=side)
        return ModelSpec(
            id=model_id,
            path=folder,
            repo=entry.repo,
            description=entry.description,
            revision=entry.revision,
            family=family,
            medium=entry.medium,
            process=Process.DIFFUSION,
            prediction_type=PredictionType(scheduler["prediction_type"]),
            training=training,
            is_distilled=entry.distilled or scheduler["_class_name"] in _CONSISTENCY_SCHEDULERS,
            teacher_steps=scheduler.get("original_inference_steps", DEFAULT_TEACHER_STEPS),
            latent_factor=factor,
            width=entry.width or side,
            height=entry.height or side,
            max_width=entry.max_width,
            max_height=entry.max_height,
            max_tokens=text_encoder["max_position_embeddings"],
            exact_rows=entry.exact_rows,
            max_rows=max(entry.max_rows, entry.exact_rows),
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


def _find_family(model_id: str, pipeline: str, entry: ModelEntry) -> str:
    if pipeline not in FAMILIES:
        raise ConfigurationError(
            f"model {model_id}: {pipeline} is not served; {', '.join(FAMILIES)} is"
        )
    family = FAMILIES[pipeline]
    if entry.family not in (None, family):
        raise ConfigurationError(
            f"model {model_id}: family is {entry.family!r}, but its files are those of a "
            f"{pipeline}; {family!r} runs it, and family may be left out"
        )
    if entry.medium is not MEDIA[family]:
        raise ConfigurationError(
            f"model {model_id}: medium is {entry.medium.value!r}, but {family} models make "
            f"{MEDIA[family].value!r}"
        )
    return family


def _check_sizes(model_id: str, entry: ModelEntry, *, factor: int, side: int) -> None:
    """See that a picture of the default size can be asked for."""
    for name in ("width", "height"):
        default, most = getattr(entry, name) or side, getattr(entry, f"max_{name}")
        if default % factor:
            raise ConfigurationError(
                f"model {model_id}: {name} {default} is no multiple of {factor}, the pixels of "
                f"a latent's cell; {default - default % factor} is"
            )
        if default > most:
            raise ConfigurationError(
                f"model {model_id}: max_{name} {most} is below the {default} pixels that it was "
                f"made for; raise it, or give a smaller {name}"
            )


def _check_process(model_id: str, pipeline: str, scheduler: Mapping[str, Any]) -> None:
    process = _PROCESSES.get(scheduler["_class_name"], Process.DIFFUSION)
    if scheduler.get("prediction_type") == PredictionType.FLOW:
        process = Process.FLOW
    if process is not Process.DIFFUSION:
        raise ConfigurationError(
            f"model {model_id}: its scheduler is one of {process} models; "
            f"a {pipeline} is served with those of {Process.DIFFUSION}"
        )


def _check_channels(model_id: str, *, unet: Mapping[str, Any], vae: Mapping[str, Any]) -> None:
    if unet["in_channels"] != vae["latent_channels"]:
        raise ConfigurationError(
            f"model {model_id}: its denoiser takes {unet['in_channels']} channels and latents have "
            f"{vae['latent_channels']}; denoisers made for inpainting are not served, "
            "the others take masks"
        )


def _read_training(model_id: str, scheduler: Mapping[str, Any]) -> TrainingSchedule:
    is_zero_snr = bool(scheduler.get("rescale_betas_zero_snr"))
    if is_zero_snr and scheduler["prediction_type"] == PredictionType.EPSILON:
        raise ConfigurationError(
            f"model {model_id}: where there is no signal (rescale_betas_zero_snr) a prediction of "
            "the noise says nothing; models that predict the sample or v are served"
        )
    training = TrainingSchedule(
        num_train_timesteps=scheduler["num_train_timesteps"],
        beta_start=scheduler["beta_start"],
        beta_end=scheduler["beta_end"],
        beta_schedule=scheduler["beta_schedule"],
        zero_terminal_snr=is_zero_snr,
    )
    # An unknown training schedule shows here.
    if training.log_sigmas[-2] >= training.log_sigmas[-1]:
        raise ConfigurationError(
            f"model {model_id}: with {training.num_train_timesteps} training timesteps the last "
            "but one has less signal than diffusers leaves at zero (rescale_betas_zero_snr)"
        )
    return training


def _read_json(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(path.read_text())
    return content


def _first_line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        return explain(error)
    if isinstance(error, KeyError):
        return f"{error} is missing"
    return str(error).splitlines()[0]
