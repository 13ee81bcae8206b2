"""What a training needs to go on after a stop: weights and the optimizer's moments."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

STEP = "step"
_MOMENTS = ("step", "exp_avg", "exp_avg_sq")


def save(
    path: Path,
    step: int,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.AdamW | None = None,
) -> None:
    """Replace a checkpoint at once, so that a stop in the middle leaves the old one."""
    tensors = {
        f"{name}/{key}": value.contiguous()
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    for number, state in _states(optimizer).items():
        tensors |= {f"optimizer/{number}/{key}": state[key] for key in _MOMENTS}
    draft = path.with_suffix(".draft")
    save_file(tensors, draft, metadata={STEP: str(step)})
    draft.replace(path)


def load(
    path: Path,
    modules: Mapping[str, nn.Module],
    optimizer: torch.optim.AdamW | None = None,
) -> int:
    """Fill modules and optimizer from a checkpoint; returns its step, 0 if there is none.

    A checkpoint without moments leaves the optimizer as it is.
    """
    if not path.exists():
        return 0
    with safe_open(path, "pt") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        step = int(file.metadata()[STEP])
    for name, module in modules.items():
        prefix = f"{name}/"
        module.load_state_dict(
            {
                key.removeprefix(prefix): value
                for key, value in tensors.items()
                if key.startswith(prefix)
            }
        )
    if optimizer is not None and f"optimizer/0/{_MOMENTS[0]}" in tensors:
        content = optimizer.state_dict()
        count = sum(len(group["params"]) for group in content["param_groups"])
        content["state"] = {
            number: {key: tensors[f"optimizer/{number}/{key}"] for key in _MOMENTS}
            for number in range(count)
        }
        optimizer.load_state_dict(content)
    return step


def _states(optimizer: torch.optim.AdamW | None) -> dict[int, dict[str, Tensor]]:
    if optimizer is None:
        return {}
    states: dict[int, dict[str, Tensor]] = optimizer.state_dict()["state"]
    return states
