"""Which kind of device a worker has: what was measured on one holds for all of its kind."""

import platform
from pathlib import Path

import torch

#: Where Linux names the processor.
CPU_INFO = Path("/proc/cpuinfo")


def describe_device(device: str) -> str:
    """Name the kind of a device, such as `cuda NVIDIA L4`."""
    kind = torch.device(device).type
    match kind:
        case "cuda":
            return f"{kind} {torch.cuda.get_device_name(device)}"
        case "cpu":
            return f"{kind} {_name_cpu()}"
    return f"{kind} {platform.machine()}"


def _name_cpu() -> str:
    if CPU_INFO.exists():
        for line in CPU_INFO.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()
