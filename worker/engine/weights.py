"""How much memory a model takes: foreseen from its files, measured once it is loaded."""

import json
import math
import struct
from collections.abc import Iterable
from pathlib import Path

import torch

#: Floating point types of safetensors files: they are loaded as the model's own type.
_FLOATS = frozenset({"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"})
#: Bytes of the other types.
_ITEM_BYTES = {
    "I64": 8,
    "I32": 4,
    "I16": 2,
    "I8": 1,
    "U64": 8,
    "U32": 4,
    "U16": 2,
    "U8": 1,
    "BOOL": 1,
}
#: Room for what no file holds, such as a table of positions, in bytes.
ROOM_BYTES = 64 * 2**10


def foresee_bytes(folder: Path, dtype: torch.dtype) -> int:
    """Add up what the safetensors files of a model's part will take as a type.

    Raises:
        OSError: There are none, or they cannot be read.
        ValueError: One is none.
    """
    files = find_weights(folder)
    return ROOM_BYTES + sum(_count_bytes(file, dtype.itemsize) for file in files)


def find_weights(folder: Path) -> list[Path]:
    """Name the files of a part's weights: one, or those that its index names.

    Raises:
        FileNotFoundError: There are none.
    """
    for stem in ("diffusion_pytorch_model", "model"):
        if (whole := folder / f"{stem}.safetensors").exists():
            return [whole]
        if (index := folder / f"{stem}.safetensors.index.json").exists():
            names = set(json.loads(index.read_text())["weight_map"].values())
            return [folder / name for name in sorted(names)]
    raise FileNotFoundError(f"{folder} has no safetensors files")


def measure_bytes(modules: Iterable[torch.nn.Module]) -> int:
    """Add up the memory of parameters and buffers; what is shared counts once."""
    tensors = {
        tensor.data_ptr(): tensor.nbytes
        for module in modules
        for tensor in (*module.parameters(), *module.buffers())
    }
    return sum(tensors.values())


def _count_bytes(file: Path, float_bytes: int) -> int:
    """Add up the tensors that the header of a safetensors file names."""
    with file.open("rb") as opened:
        prefix = opened.read(8)
        if len(prefix) < 8:
            raise ValueError(f"{file.name} is no safetensors file")
        (length,) = struct.unpack("<Q", prefix)
        if length > file.stat().st_size:
            raise ValueError(f"{file.name} is no safetensors file")
        header = json.loads(opened.read(length))
    return sum(
        math.prod(tensor["shape"])
        * (float_bytes if tensor["dtype"] in _FLOATS else _ITEM_BYTES[tensor["dtype"]])
        for name, tensor in header.items()
        if name != "__metadata__"
    )
