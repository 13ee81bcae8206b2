"""Every kind of model that samplers are told apart by, without weights.

The demo model's facts with some of them exchanged: its training schedule is Stable Diffusion's.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from diffusers import (
    EDMDPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
)

from evals.oracle import SIGMA_DATA
from models import CATALOG
from shared.catalog import Catalog, ModelSpec
from shared.vocab import PredictionType, Process
from worker.engine.samplers import Scheduler, load_native

MODEL = "demo"
#: What refusals call a model that stands for its kind.
ANY_MODEL = "this one"
_DIFFUSION = (PredictionType.EPSILON, PredictionType.SAMPLE, PredictionType.V_PREDICTION)


@dataclass(frozen=True)
class Kind:
    """One kind of model with one kind of prediction."""

    name: str
    spec: ModelSpec
    #: The scheduler that a folder of this kind would hold.
    native: Scheduler

    def __str__(self) -> str:
        return f"{self.name}, {self.spec.prediction_type}"


def load_kinds() -> list[Kind]:
    """Make all kinds with all predictions that a catalog takes."""
    demo = Catalog.load(CATALOG).models[MODEL]
    return list(_vary(replace(demo, id=ANY_MODEL), load_native(demo.path)))


def _vary(spec: ModelSpec, native: Scheduler) -> Iterator[Kind]:
    rescaled = replace(spec.training, zero_terminal_snr=True)
    lcm: Any = LCMScheduler  # these ship no type information
    flow: Any = FlowMatchEulerDiscreteScheduler
    edm: Any = EDMDPMSolverMultistepScheduler
    for prediction in _DIFFUSION:
        mine = replace(spec, prediction_type=prediction)
        own = type(native).from_config(native.config, prediction_type=prediction)
        yield Kind("ordinary", mine, own)
    for prediction in _DIFFUSION:
        mine = replace(spec, prediction_type=prediction, is_distilled=True)
        yield Kind("distilled", mine, lcm.from_config(native.config, prediction_type=prediction))
    for prediction in (PredictionType.SAMPLE, PredictionType.V_PREDICTION):
        mine = replace(spec, prediction_type=prediction, training=rescaled)
        own = type(native).from_config(
            native.config, prediction_type=prediction, rescale_betas_zero_snr=True
        )
        yield Kind("zero-terminal-SNR", mine, own)
    flowing = replace(spec, process=Process.FLOW, prediction_type=PredictionType.FLOW)
    yield Kind("flow", flowing, flow(shift=3.0))  # SD3's
    # diffusers' EDM schedulers know no models that predict the sample.
    for prediction in (PredictionType.EPSILON, PredictionType.V_PREDICTION):
        mine = replace(spec, process=Process.EDM, prediction_type=prediction)
        own = edm(prediction_type=prediction, sigma_data=SIGMA_DATA)
        yield Kind("EDM", mine, own)
