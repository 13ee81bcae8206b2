"""What follows from the files of a model, and the parts of it that most kinds share."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shared.device_options import DeviceOptions
from shared.errors import ConfigurationError
from shared.schedule import TrainingSchedule
from shared.sound import SoundSpec
from shared.vocab import GuidanceForm, Medium, PredictionType, Process

#: Scheduler classes that a folder names if its model is none of the usual diffusion.
PROCESSES = {
    "FlowMatchEulerDiscreteScheduler": Process.FLOW,
    "FlowMatchHeunDiscreteScheduler": Process.FLOW,
    "CosineDPMSolverMultistepScheduler": Process.EDM,
    "EDMDPMSolverMultistepScheduler": Process.EDM,
    "EDMEulerScheduler": Process.EDM,
}
#: Scheduler classes that a folder names if its model was distilled for them.
CONSISTENCY_SCHEDULERS = frozenset({"LCMScheduler", "TCDScheduler"})
#: Steps of the teacher that a model was distilled from, as diffusers has it.
DEFAULT_TEACHER_STEPS = 50
#: Device options of families that are written for all of them.
ALL_OPTIONS = frozenset(DeviceOptions.model_fields)


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What follows from a diffusers folder alone."""

    #: `_class_name` of its model_index.json.
    pipeline: str
    family: str
    medium: Medium
    process: Process
    prediction_type: PredictionType
    training: TrainingSchedule
    #: Whether its scheduler is one of models distilled for consistency sampling.
    is_distilled: bool
    teacher_steps: int
    #: Pixels per latent cell, along each side.
    latent_factor: int
    #: Pixels along each side of what it was trained on.
    side: int
    max_tokens: int = 0
    labels: Mapping[str, int] | None = None
    #: Folders of its networks, where its family does not say which those are.
    parts: tuple[str, ...] = ()
    guidance: GuidanceForm = GuidanceForm.CLASSIFIER_FREE
    #: Folders of the tokenizers that count a prompt's tokens.
    tokenizers: tuple[str, ...] = ()
    #: Latent cells along each side of what the denoiser takes as one.
    patch: int = 1
    #: Most pixels along a side that it has positions for, if they end.
    max_side: int | None = None
    #: Whether its levels depend on a picture's size.
    shifts_by_size: bool = False
    #: Whether jobs can have adapters.
    takes_adapters: bool = False
    #: Whether jobs can start from a picture.
    starts_from_pictures: bool = False
    #: Whether it makes pictures of that size and no other.
    has_one_size: bool = False
    #: Of models that make sounds, whose `side` is 0.
    sound: SoundSpec | None = None
    #: Device options that its family is served with.
    device_options: frozenset[str] = ALL_OPTIONS

    @property
    def size_step(self) -> int:
        """Pixels of which sizes are multiples."""
        return self.latent_factor * self.patch


def latent_factor_of(vae: Mapping[str, Any]) -> int:
    """Count the pixels of a latent's cell along each side, from an autoencoder's config."""
    return int(2 ** (len(vae["block_out_channels"]) - 1))


def check_channels(model_id: str, *, taken: int, vae: Mapping[str, Any]) -> None:
    """See that a denoiser takes what an autoencoder makes."""
    if taken != vae["latent_channels"]:
        raise ConfigurationError(
            f"model {model_id}: its denoiser takes {taken} channels and latents have "
            f"{vae['latent_channels']}; denoisers made for inpainting are not served, "
            "the others take masks"
        )


def read_guidance(unet: Mapping[str, Any]) -> GuidanceForm:
    """Tell how a UNet is guided, from its config."""
    is_told = unet.get("time_cond_proj_dim") is not None
    return GuidanceForm.TOLD if is_told else GuidanceForm.CLASSIFIER_FREE


def check_process(
    model_id: str,
    pipeline: str,
    scheduler: Mapping[str, Any],
    *,
    served: Process = Process.DIFFUSION,
) -> None:
    """See that a scheduler is of the process that a pipeline is served with."""
    process = PROCESSES.get(scheduler["_class_name"], Process.DIFFUSION)
    if scheduler.get("prediction_type") == PredictionType.FLOW:
        process = Process.FLOW
    if process is not served:
        raise ConfigurationError(
            f"model {model_id}: its scheduler is one of {process} models; "
            f"a {pipeline} is served with those of {served}"
        )


def read_diffusion(model_id: str, pipeline: str, scheduler: Mapping[str, Any]) -> dict[str, Any]:
    """Read the facts that follow from the scheduler of a diffusion model, and of no other."""
    check_process(model_id, pipeline, scheduler)
    return {
        "process": Process.DIFFUSION,
        "prediction_type": PredictionType(scheduler["prediction_type"]),
        "training": read_training(model_id, scheduler),
        "is_distilled": scheduler["_class_name"] in CONSISTENCY_SCHEDULERS,
        "teacher_steps": scheduler.get("original_inference_steps", DEFAULT_TEACHER_STEPS),
    }


def read_training(model_id: str, scheduler: Mapping[str, Any]) -> TrainingSchedule:
    """Read the training schedule of a diffusion model, from its scheduler's config."""
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


def read_json(path: Path) -> dict[str, Any]:
    """Read a file of a folder."""
    content: dict[str, Any] = json.loads(path.read_text())
    return content
