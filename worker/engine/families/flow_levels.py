"""What flow models tell their scheduler of a request: larger pictures take more of the noise."""

from collections.abc import Mapping
from typing import Any


def shift_of(num_patches: int, config: Mapping[str, Any]) -> float:
    """Say how far the levels of so many patches are moved up, `mu` of diffusers' schedulers.

    Source: Esser et al. (2024), section 5.3.2; a line through two sizes, as diffusers has it.
    """
    few, many = config["base_image_seq_len"], config["max_image_seq_len"]
    slope = (config["max_shift"] - config["base_shift"]) / (many - few)
    return float(num_patches * slope + (config["base_shift"] - slope * few))
