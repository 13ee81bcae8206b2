"""Models that come with LatentQ: ordinary diffusers folders and the catalog that names them."""

from pathlib import Path

#: The catalog of a process that is given no other.
CATALOG = Path(__file__).parent / "catalog.toml"
