"""The words of diffusion as they stand on the wire."""

from enum import StrEnum


class Medium(StrEnum):
    """What a model makes."""

    IMAGE = "image"
    AUDIO = "audio"


class PredictionType(StrEnum):
    """What a model's network predicts: a fact of the model, never a choice of the job."""

    EPSILON = "epsilon"
    SAMPLE = "sample"
    V_PREDICTION = "v_prediction"
    #: The velocity of a flow from data to noise.
    FLOW = "flow"


class Process(StrEnum):
    """How a model's data turn into noise: a fact of the model, never a choice of the job."""

    #: sqrt(abar) x_0 + sqrt(1 - abar) eps, as DDPM and Stable Diffusion have it.
    DIFFUSION = "diffusion"
    #: (1 - t) x_0 + t eps, as SD3 and Flux have it.
    FLOW = "flow"
    #: x_0 + sigma eps, the network preconditioned as in Karras et al. (2022).
    EDM = "edm"


class GuidanceForm(StrEnum):
    """How a model is guided: a fact of the model, as the scale is the job's."""

    #: By a second row in each forward, for the negative prompt.
    CLASSIFIER_FREE = "classifier_free"
    #: By its denoiser, which is told the scale: one row.
    TOLD = "told"
    #: Not at all, since it was distilled to need none.
    NONE = "none"


class Sampler(StrEnum):
    """The stepping rule of a job."""

    DDPM = "ddpm"
    DDIM = "ddim"
    DPMPP_2M = "dpmpp_2m"
    DPMPP_2M_SDE = "dpmpp_2m_sde"
    DPMPP_SINGLESTEP = "dpmpp_singlestep"
    UNIPC = "unipc"
    EULER = "euler"
    EULER_ANCESTRAL = "euler_ancestral"
    HEUN = "heun"
    DEIS = "deis"
    PNDM = "pndm"
    KDPM2 = "kdpm2"
    KDPM2_ANCESTRAL = "kdpm2_ancestral"
    SA_SOLVER = "sa_solver"
    LCM = "lcm"
    TCD = "tcd"
    FLOW_EULER = "flow_euler"
    FLOW_HEUN = "flow_heun"
    EDM_DPMPP_2M = "edm_dpmpp_2m"


class Schedule(StrEnum):
    """The noise levels that a job visits."""

    NATIVE = "native"
    KARRAS = "karras"
    EXPONENTIAL = "exponential"
    BETA = "beta"
    LINEAR = "linear"
    COSINE = "cosine"


class Determinism(StrEnum):
    """How far a result may depend on its company in the batch."""

    #: Free batch sizes: equal to a solo run within rounding.
    FAST = "fast"
    #: Every forward has the model's `exact_rows` rows: equal bytes in any company.
    EXACT = "exact"


class ServiceClass(StrEnum):
    """Which of a model's two queues a job waits in."""

    INTERACTIVE = "interactive"
    BATCH = "batch"


class OutputFormat(StrEnum):
    """The file format of a result."""

    PNG = "png"
    WEBP = "webp"
    JPEG = "jpeg"
    WAV = "wav"
    FLAC = "flac"


CONTENT_TYPES = {
    OutputFormat.PNG: "image/png",
    OutputFormat.WEBP: "image/webp",
    OutputFormat.JPEG: "image/jpeg",
    OutputFormat.WAV: "audio/wav",
    OutputFormat.FLAC: "audio/flac",
}
#: What each medium is written as, the default first.
OUTPUT_FORMATS = {
    Medium.IMAGE: (OutputFormat.PNG, OutputFormat.WEBP, OutputFormat.JPEG),
    Medium.AUDIO: (OutputFormat.WAV, OutputFormat.FLAC),
}


#: Samplers that look twice at every step but the last.
_TWO_STAGES = frozenset({Sampler.HEUN, Sampler.KDPM2, Sampler.KDPM2_ANCESTRAL, Sampler.FLOW_HEUN})


def num_iterations(sampler: Sampler, steps: int) -> int:
    """Count the forwards of one trajectory."""
    if sampler in _TWO_STAGES:
        return 2 * steps - 1
    if sampler is Sampler.PNDM and steps > 1:
        return steps + 1  # it takes its second step twice
    return steps


def first_iteration(sampler: Sampler, steps: int, strength: float) -> int:
    """Return the iteration that a trajectory begins with when it starts from a picture.

    Whole steps are left out, as diffusers' image-to-image pipelines do; none at strength 1.
    """
    left_out = steps - min(int(steps * strength), steps)
    return left_out * (2 if sampler in _TWO_STAGES else 1)
