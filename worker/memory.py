"""How much memory models may take, unless somebody says so."""

import os
from pathlib import Path

import torch

#: Share of a GPU's memory: what forwards and decoding need besides grows with their rows.
GPU_SHARE = 0.7
#: Share of a machine's memory, which other processes use too.
MACHINE_SHARE = 0.5
#: Where Linux says what a container may have, the newer way and the older one.
CGROUP_LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


def choose_budget(device: str) -> int:
    """Return what all models of a worker may take together, in bytes.

    Several workers on one machine each count for themselves; tell them what is theirs.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    if kind == "mps":
        return int(GPU_SHARE * torch.mps.recommended_max_memory())
    return int(MACHINE_SHARE * machine_bytes())


def machine_bytes() -> int:
    """Return the memory of this machine, or of this container if that has less."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([total, *(limit for path in CGROUP_LIMITS if (limit := _read_limit(path)))])


def _read_limit(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdigit() else None  # `max` is no limit
