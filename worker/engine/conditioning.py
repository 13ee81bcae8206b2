"""What the rows of a forward are conditioned on."""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

#: What a row shall show, before it is encoded: a prompt, a label, and what else counts in it.
Condition: TypeAlias = Hashable
#: Encoded conditions by the name that the family knows them by: [1, ...] each for one row,
#: [B, ...] for a forward.
Conditioning: TypeAlias = Mapping[str, Tensor]
#: Names and shapes of one row's conditioning.
Shapes: TypeAlias = tuple[tuple[str, tuple[int, ...]], ...]


def collate(rows: Sequence[Conditioning]) -> Conditioning:
    """Put rows of one kind under each other."""
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def repeat(row: Conditioning, rows: int) -> Conditioning:
    """Make as many rows of one."""
    return collate([row] * rows)


def shapes_of(row: Conditioning) -> Shapes:
    """Tell what rows must have in common to share a forward."""
    return tuple((name, tuple(tensor.shape[1:])) for name, tensor in sorted(row.items()))


def count_tokens(shapes: Shapes) -> int:
    """Count what the denoiser attends to: the lengths of all sequences [T, D]."""
    return sum(shape[0] for _, shape in shapes if len(shape) == 2)
