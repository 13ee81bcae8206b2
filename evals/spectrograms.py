"""Draw recordings as spectrograms, for eyes: time to the right, pitch upwards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import pyplot
from numpy.typing import NDArray

from evals.hearing import Wave
from models.train.audio.sounds import SAMPLING_RATE

#: Recordings on a sheet, and in a row of it.
NUM_SHOWN, COLUMNS = 12, 3
#: Samples of a look, and from one to the next.
LOOK, HOP = 256, 40
#: Decibels below a sine of full amplitude at which black begins.
DARKEST = -60.0
#: Pitches are drawn from the lowest of these, in Hz, each as high above the last.
TICKS = (125, 250, 500, 1000, 2000, 4000)


def draw_sheet(titles: Sequence[str], waves: Sequence[Wave], file: Path) -> None:
    """Draw the first recordings, each [T] under its title, as a picture."""
    shown = list(zip(titles, waves, strict=True))[:NUM_SHOWN]
    rows = -(-len(shown) // COLUMNS)
    figure, axes = pyplot.subplots(
        rows, COLUMNS, figsize=(4 * COLUMNS, 2 * rows), sharex=True, sharey=True, squeeze=False
    )
    for axis, (title, wave) in zip(axes.flat, shown, strict=False):
        decibels = measure_decibels(wave)
        seconds = (np.arange(decibels.shape[1] + 1) - 0.5) * HOP / SAMPLING_RATE
        frequencies = (np.arange(decibels.shape[0] + 1) - 0.5) * SAMPLING_RATE / LOOK
        axis.pcolormesh(seconds, frequencies, decibels, vmin=DARKEST, vmax=0, cmap="magma")
        axis.set_yscale("log", base=2)
        axis.set_ylim(TICKS[0], TICKS[-1])
        axis.set_yticks(TICKS, [f"{tick}" for tick in TICKS])
        axis.set_title(title, fontsize=8)
    for axis in axes[-1]:
        axis.set_xlabel("seconds")
    for axis in axes[:, 0]:
        axis.set_ylabel("Hz")
    figure.tight_layout()
    figure.savefig(file, dpi=80)
    pyplot.close(figure)


def measure_decibels(wave: Wave) -> NDArray[np.float64]:
    """Return how strong each pitch is when, [LOOK // 2 + 1, looks], in decibels."""
    padded = np.pad(wave.astype(np.float64), LOOK // 2)
    looks = np.lib.stride_tricks.sliding_window_view(padded, LOOK)[::HOP]
    window = np.hanning(LOOK)
    magnitudes = np.abs(np.fft.rfft(looks * window, axis=1)) * 2 / window.sum()
    decibels: NDArray[np.float64] = 20 * np.log10(np.maximum(magnitudes.T, 10 ** (DARKEST / 20)))
    return decibels
