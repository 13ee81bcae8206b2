"""What a device needs to be asked for."""

import torch


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was given.

    A forward on a GPU returns as soon as it is queued: a clock that is read then has seen Python's
    time, not the device's.
    """
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def free_unused(device: torch.device) -> None:
    """Give memory back that torch keeps for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()
