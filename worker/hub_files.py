"""Weights from a hub, for whoever loads them."""

from collections.abc import Iterable

from shared.catalog import ModelSpec
from shared.hub import Hub


class HubFiles:
    """Brings the weights of models that come from a hub; those of a folder are here."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def are_here(self, spec: ModelSpec) -> bool:
        """Tell whether a model can be loaded without the hub being asked."""
        return spec.repo is None or self._hub.has_weights(spec.repo, spec.revision)

    def fetch(self, spec: ModelSpec, parts: Iterable[str]) -> None:
        """Have the weights of a model's parts here.

        Raises:
            HubUnavailable: Some are not here and cannot be fetched.
        """
        if spec.repo is not None:
            self._hub.fetch_weights(spec.repo, spec.revision, parts)
