"""LatentQ on one machine: servers out of Python wheels, and the supervisor of all processes."""
