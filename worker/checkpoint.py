"""The file in which a job's state is kept: safetensors, with JSON in its header. No pickle.

It says under what circumstances it was made: a job goes on from it only where all of them are the
same, so that an `exact` one gives the bytes that it would have given without a break.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from shared.adapters import AdapterSpec
from shared.catalog import ModelSpec
from shared.request import GenerationRequest
from worker.engine import JobState
from worker.engine.state import Conditions, OutputState, Value

#: Changes whenever the file does, or what the engine makes of the same state.
SCHEMA = 1
#: The libraries that show in the last bits of a result. LatentQ's own version is none of them, so
#: that a deploy costs no work: it is SCHEMA that stands for our own arithmetic.
LIBRARIES = ("torch", "diffusers", "transformers", "numpy", "scipy")
CONTENT_TYPE = "application/vnd.safetensors"
_LENGTH_BYTES = 8

#: What a result depends on besides the engine's own conditions, by names that a log can show.
Circumstances = Mapping[str, Any]


class CheckpointUnusable(Exception):
    """A job cannot go on from this file; the message says why."""


def describe_circumstances(
    request: GenerationRequest,
    spec: ModelSpec,
    versions: Mapping[str, str],
    adapters: Mapping[str, AdapterSpec],
) -> Circumstances:
    """Say what a state depends on that no engine can see; the request by its hash alone."""
    # Without defaults, so that a field that a later version knows makes no old job a foreign one.
    asked = json.dumps(request.model_dump(mode="json", exclude_defaults=True), sort_keys=True)
    return {
        "request": hashlib.sha256(asked.encode()).hexdigest(),
        "model": spec.id,
        "revision": spec.revision,
        "device_options": spec.device_options.changed(),
        "adapters": {use.id: adapters[use.id].revision for use in request.adapters},
        "versions": dict(versions),
    }


def encode_checkpoint(state: JobState, circumstances: Circumstances) -> bytes:
    """Write a state down."""
    tensors: dict[str, Tensor] = {}
    outputs = [
        {
            "iteration": output.iteration,
            "row_sum": output.row_sum,
            "scheduler": output.scheduler,
            "latents": _pack(output.latents, f"{index}.latents", tensors),
            "generator": _pack(output.generator, f"{index}.generator", tensors),
            "values": {
                name: _pack(value, f"{index}.{name}", tensors)
                for name, value in output.values.items()
            },
        }
        for index, output in enumerate(state.outputs)
    ]
    content = {
        "fingerprint": dict(circumstances) | asdict(state.conditions),
        "outputs": outputs,
    }
    document = json.dumps(content, sort_keys=True)
    metadata = {
        "schema": str(SCHEMA),
        "document": document,
        "sha256": _digest(document, tensors),
    }
    return safetensors.torch.save(tensors, metadata)


def decode_checkpoint(data: bytes, circumstances: Circumstances) -> JobState:
    """Read a state, if it was made under these circumstances.

    Raises:
        CheckpointUnusable: It was not, or the file is broken or of another schema.
    """
    metadata = _read_metadata(data)
    if metadata.get("schema") != str(SCHEMA):
        raise CheckpointUnusable(
            f"its schema is {metadata.get('schema')}, this worker's is {SCHEMA}"
        )
    try:
        tensors = safetensors.torch.load(data)
        document = metadata["document"]
        if metadata["sha256"] != _digest(document, tensors):
            raise CheckpointUnusable("its digest is wrong")
        content = json.loads(document)
        _compare(content["fingerprint"], circumstances)
        return JobState(
            conditions=Conditions(
                **{name: content["fingerprint"][name] for name in Conditions.__annotations__}
            ),
            outputs=tuple(_read_output(output, tensors) for output in content["outputs"]),
        )
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointUnusable(f"it is broken: {type(error).__name__}") from error


def _compare(there: Mapping[str, Any], here: Circumstances) -> None:
    for name, value in here.items():
        if there[name] != value:
            raise CheckpointUnusable(f"its {name} was {there[name]}, here it is {value}")


def _read_output(output: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> OutputState:
    return OutputState(
        iteration=output["iteration"],
        row_sum=output["row_sum"],
        latents=_unpack_tensor(output["latents"], tensors),
        generator=_unpack_tensor(output["generator"], tensors),
        scheduler=output["scheduler"],
        values={name: _unpack(value, tensors) for name, value in output["values"].items()},
    )


def _pack(value: Value, name: str, tensors: dict[str, Tensor]) -> Any:
    """Turn a value into JSON; tensors go into the file beside it."""
    if isinstance(value, Tensor):
        # Its order in memory shows in the last bits of what is computed from it.
        is_last = not value.is_contiguous() and value.is_contiguous(
            memory_format=torch.channels_last
        )
        tensors[name] = value.cpu().contiguous()
        return {"tensor": name, "channels_last": is_last}
    if isinstance(value, list):
        return [_pack(part, f"{name}.{n}", tensors) for n, part in enumerate(value)]
    return value


def _unpack(value: Any, tensors: Mapping[str, Tensor]) -> Value:
    if isinstance(value, dict):
        return _unpack_tensor(value, tensors)
    if isinstance(value, list):
        return [_unpack(part, tensors) for part in value]
    unpacked: Value = value
    return unpacked


def _unpack_tensor(value: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Tensor:
    tensor = tensors[value["tensor"]]
    if not value["channels_last"]:
        return tensor
    return tensor.contiguous(memory_format=torch.channels_last)


def _read_metadata(data: bytes) -> Mapping[str, str]:
    """Read what a safetensors file says of itself, which the library does for files only."""
    length = int.from_bytes(data[:_LENGTH_BYTES], "little")
    try:
        header = json.loads(data[_LENGTH_BYTES : _LENGTH_BYTES + length])
        metadata: Mapping[str, str] = dict(header["__metadata__"])
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointUnusable("it is no checkpoint, or only a part of one") from error
    return metadata


def _digest(document: str, tensors: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256(document.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)} ".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
