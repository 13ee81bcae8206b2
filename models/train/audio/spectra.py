"""How far two waves are apart to the ear: by magnitudes of spectra, not by phases."""

import torch
from torch import Tensor

#: Samples of a window: short ones tell when, long ones tell how high.
WINDOWS = (64, 256, 1024)
#: Amplitude below which a difference is not heard.
FLOOR = 1e-3


def compare_spectra(first: Tensor, second: Tensor) -> Tensor:
    """Return the mean absolute difference of magnitudes [B, T], in decades, over all windows."""
    distances = [
        (_decades(first, window) - _decades(second, window)).abs().mean() for window in WINDOWS
    ]
    return torch.stack(distances).mean()


def _decades(waves: Tensor, length: int) -> Tensor:
    window = torch.hann_window(length)
    spectrum = torch.stft(waves, length, hop_length=length // 4, window=window, return_complex=True)
    # A sine of amplitude 1 has magnitude 1.
    magnitudes = (spectrum.real.square() + spectrum.imag.square() + 1e-12).sqrt() * 2 / window.sum()
    return (magnitudes + FLOOR).log10()
