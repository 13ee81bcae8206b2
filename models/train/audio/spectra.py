"""How far two waves are apart to the ear: by magnitudes of spectra, not by phases."""

import torch
from torch import Tensor

#: Samples of a window: short ones tell when, long ones tell how high.
WINDOWS = (64, 256, 1024)
#: Amplitude below which a difference is not heard.
FLOOR = 1e-3
#: What keeps roots and quotients of silence finite.
TINY = 1e-7


def compare_spectra(waves: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Compare magnitudes of waves [B, T] in two ways, each averaged over all windows.

    The first weighs what is strong: the root of the squared difference over the target's. The
    second weighs all alike: the mean difference, in decades.
    """
    relative, decades = [], []
    for window in WINDOWS:
        ours, theirs = _magnitudes(waves, window), _magnitudes(targets, window)
        distance = (ours - theirs).square().mean(dim=(1, 2)) + TINY
        relative.append((distance / (theirs.square().mean(dim=(1, 2)) + TINY)).sqrt().mean())
        decades.append(((ours + FLOOR).log10() - (theirs + FLOOR).log10()).abs().mean())
    return torch.stack(relative).mean(), torch.stack(decades).mean()


def _magnitudes(waves: Tensor, length: int) -> Tensor:
    """Return [B, frequencies, looks]; a sine of amplitude 1 has magnitude 1."""
    window = torch.hann_window(length)
    spectrum = torch.stft(waves, length, hop_length=length // 4, window=window, return_complex=True)
    return (spectrum.real.square() + spectrum.imag.square() + TINY**2).sqrt() * 2 / window.sum()
