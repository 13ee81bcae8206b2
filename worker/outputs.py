"""What a job made on its way into the store: its files, and what their rows say."""

from collections.abc import Mapping, Sequence
from typing import Any

from shared.errors import InternalFailure
from shared.job import Artifact
from shared.request import GenerationRequest
from worker.artifact import OutputFile, encode_image
from worker.engine import ImageOutput, SoundOutput
from worker.sound_file import encode_sound


def encode(
    output: ImageOutput | SoundOutput, request: GenerationRequest, versions: Mapping[str, str]
) -> OutputFile:
    """Encode an output in the format the request asks for.

    Raises:
        InternalFailure: It cannot be; says what may work.
    """
    seed = output.seed
    try:
        if isinstance(output, SoundOutput):
            return encode_sound(output.sound, request=request, seed=seed, versions=versions)
        return encode_image(output.pixels, request=request, seed=seed, versions=versions)
    except Exception as cause:
        kind = "sound" if isinstance(output, SoundOutput) else "picture"
        raise InternalFailure(
            f"the {kind} could not be written as {request.output_format}; another output_format "
            "may work, and the worker's log tells more under the job's id"
        ) from cause


def thumbnail_key(key: str, file: OutputFile) -> str:
    """Name the object of an output's thumbnail: its own where it is small enough."""
    return key if file.thumbnail is None else f"{key}.thumbnail.webp"


def describe(output: ImageOutput | SoundOutput, file: OutputFile, key: str) -> Artifact:
    """Say what an output's row holds."""
    return Artifact(
        index=output.index,
        key=key,
        content_type=file.content_type,
        width=file.width,
        height=file.height,
        seed=output.seed,
        sha256=file.sha256,
        num_bytes=len(file.data),
        duration_s=file.duration_s,
        sample_rate=file.sample_rate,
        thumbnail_key=thumbnail_key(key, file),
    )


def say_gains(gains: Sequence[float | None]) -> dict[str, Any]:
    """Tell in a job's `execution` what its sounds were multiplied with; pictures say nothing."""
    return {} if None in gains else {"gains": list(gains)}
