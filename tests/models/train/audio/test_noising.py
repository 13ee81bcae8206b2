"""Noise and prediction are what diffusers' EDM schedulers take them for."""

import random

import pytest
import torch
from diffusers import EDMDPMSolverMultistepScheduler

from models.train.audio.noising import TRAINING_SCHEDULE, add_noise, draw_sigmas
from models.train.audio.sounds import NUM_TICKS, draw_sound
from models.train.audio.timeline import LABELS, TimelineHead, map_timeline


@pytest.mark.parametrize("sigma", [0.03, 0.5, 1.0, 7.0, 40.0])
def test_the_scheduler_finds_the_latents_in_a_perfect_prediction(sigma: float) -> None:
    scheduler = EDMDPMSolverMultistepScheduler(**TRAINING_SCHEDULE)
    generator = torch.Generator().manual_seed(1)
    latents, noise = torch.randn(2, 3, 4, 5, generator=generator, dtype=torch.float64)
    level = torch.full((3,), sigma, dtype=torch.float64)
    inputs, timesteps, velocity = add_noise(latents, noise, level)
    noisy = latents + sigma * noise
    assert torch.allclose(scheduler.precondition_inputs(noisy, level[0]), inputs)
    assert torch.allclose(scheduler.precondition_noise(level), timesteps)
    assert torch.allclose(scheduler.precondition_outputs(noisy, velocity, level[0]), latents)
    # What comes in and what is asked for have the deviation of the latents, at each noise level.
    assert inputs.std() == pytest.approx(1, abs=0.3)
    assert velocity.std() == pytest.approx(1, abs=0.3)


def test_sampling_with_the_exact_prediction_gives_the_datas_deviation() -> None:
    """Of normal latents the best prediction is known: no signal of the input is velocity."""
    scheduler = EDMDPMSolverMultistepScheduler(**TRAINING_SCHEDULE)
    scheduler.set_timesteps(25)
    sample = torch.randn(4000, generator=torch.Generator().manual_seed(2))
    sample = sample * scheduler.init_noise_sigma
    for timestep in scheduler.timesteps:
        scheduler.scale_model_input(sample, timestep)
        sample = scheduler.step(torch.zeros_like(sample), timestep, sample).prev_sample
    assert sample.std() == pytest.approx(1, abs=0.05)


def test_noise_levels_stay_in_the_schedules_range_and_fill_it() -> None:
    sigmas = draw_sigmas(4000, torch.Generator().manual_seed(3))
    low, high = TRAINING_SCHEDULE["sigma_min"], TRAINING_SCHEDULE["sigma_max"]
    assert sigmas.min() >= low * 0.999
    assert sigmas.max() <= high * 1.001
    assert sigmas.quantile(0.05) < 0.3
    assert sigmas.quantile(0.95) > 10


def test_a_timeline_says_what_is_heard_when_and_a_head_can_learn_it() -> None:
    rng = random.Random(4)
    sounds = [draw_sound(rng, two_phrases=0.5) for _ in range(20)]
    timelines = torch.stack([map_timeline(sound) for sound in sounds])
    assert timelines.shape == (20, NUM_TICKS)
    for sound, timeline in zip(sounds, timelines, strict=True):
        for phrase in sound.phrases:
            label = LABELS[int(timeline[phrase.events[0].start])]
            assert label == (phrase.stroke, phrase.pitch)
        assert not timeline[sound.ticks :].any()
    features = torch.nn.functional.one_hot(timelines, len(LABELS)).float()
    head = TimelineHead(len(LABELS))
    optimizer = torch.optim.Adam(head.parameters(), lr=0.3)
    for _ in range(60):
        loss = head.loss(features, timelines)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert loss.item() < 0.05
