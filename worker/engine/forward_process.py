"""The forward process in closed form: how a picture enters the reverse process in the middle.

x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (Ho et al. 2020, eq. 4); each scheduler writes it in
its own scale of levels.
"""

from dataclasses import dataclass

from torch import Tensor

from worker.engine.samplers import Scheduler


def noise_to(scheduler: Scheduler, latents: Tensor, noise: Tensor, iteration: int) -> Tensor:
    """Bring clean latents [1, C, h, w] to the noise level that an iteration starts from."""
    timestep = scheduler.timesteps[iteration : iteration + 1]
    noisy: Tensor = scheduler.add_noise(latents, noise, timestep)
    return noisy


@dataclass(frozen=True, slots=True)
class KnownRegion:
    """The part of a picture that a mask keeps.

    Source: RePaint (Lugmayr et al. 2022), eq. 8, without its resampling; with one noise for the
    whole trajectory, as diffusers' StableDiffusionInpaintPipeline has it.
    """

    latents: Tensor  # [1, C, h, w], clean
    noise: Tensor  # [1, C, h, w]
    mask: Tensor  # [1, 1, h, w]; 1 where the picture is made anew

    def restore(self, latents: Tensor, scheduler: Scheduler, iteration: int) -> Tensor:
        """Put the known part into latents that are about to enter an iteration, or have ended."""
        known = self.latents
        if iteration < len(scheduler.timesteps):
            known = noise_to(scheduler, known, self.noise, iteration)
        return (1 - self.mask) * known + self.mask * latents
