"""Turn finished latents into pixels or sound, in tiles where the whole does not fit."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from shared.errors import JobError, OutOfMemory
from worker.company import Company
from worker.engine.cost import CostModel
from worker.engine.families.family import Family
from worker.engine.fault import as_job_error, call_with_room, is_out_of_memory, release_memory
from worker.engine.fitting import advise_size
from worker.engine.model_cache import ModelCache
from worker.engine.sound import Sound
from worker.engine.timings import TimeAccount
from worker.engine.trajectory import DecodeKey, Trajectory

#: Tiles along the longer side, if the whole does not fit.
TILINGS = (2, 4)


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels [H, W, 3] or a sound, and in how many tiles along the longer side it was decoded."""

    content: NDArray[np.uint8] | Sound
    tiles: int = 1


class Decoder:
    """Decode one trajectory at a time. Used by one thread."""

    def __init__(
        self,
        models: ModelCache,
        costs: CostModel,
        timings: TimeAccount,
        *,
        company: Company,
        check_device: Callable[[BaseException, str], None],
    ) -> None:
        self._models = models
        self._costs = costs
        self._timings = timings
        self._company = company
        self._check_device = check_device

    def decode(self, trajectory: Trajectory) -> Decoded:
        """Decode a trajectory that has come to its end.

        Where memory is out, it has the device to itself for another try, then for tries in tiles.
        These change pixels near their borders, so that an exact job fails instead.

        Raises:
            DeviceLost: Nothing can be decoded any more.
            JobError: This cannot be.
        """
        try:
            # Its run may end meanwhile and unpin the model.
            with self._models.pinned(trajectory.key.model), self._timings.measure("decode_s"):
                return self._decode(trajectory)
        except Exception as cause:
            self._check_device(cause, trajectory.key.model)
            raise as_job_error(cause, "the decoder") from cause

    def _decode(self, trajectory: Trajectory) -> Decoded:
        family = self._models.get(trajectory.key.model)
        began_at = self._timings.clock()
        whole = partial(family.decode, trajectory.latents)
        try:
            content = call_with_room(self._company, whole)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            release_memory(error)
        else:
            key = DecodeKey(trajectory.key.model, trajectory.key.latent_shape)
            self._costs.observe(key, 1, 1000 * (self._timings.clock() - began_at))
            return Decoded(content)
        with self._company.alone():
            return self._decode_tiled(family, trajectory)

    def _decode_tiled(self, family: Family, trajectory: Trajectory) -> Decoded:
        is_exact = trajectory.exact_rows is not None
        tilings = () if is_exact else TILINGS
        for tiles in tilings:
            try:
                return Decoded(family.decode(trajectory.latents, tiles=tiles), tiles)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
                release_memory(error)
        raise self._explain(family, trajectory, tilings[-1] if tilings else 1)

    def _explain(self, family: Family, trajectory: Trajectory, tiles: int) -> JobError:
        latents = trajectory.latents

        def call(shape: tuple[int, ...]) -> None:
            family.decode(latents.new_zeros(1, latents.shape[1], *shape), tiles=tiles)

        where = "in the decoder, which an exact job gives no tiles," if tiles == 1 else ""
        return OutOfMemory(advise_size(family.spec, latents.shape[2:], call, where=where))
