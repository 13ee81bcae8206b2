"""Tiny models with random weights, one for each family of sounds, as ordinary diffusers folders.

They say nothing, and compute everything that their large kin do. A folder is the same bytes
whenever it is written by the same libraries.
"""

import string
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from tokenizers import pre_tokenizers

#: Words that the tokenizers have whole.
WORDS = ("a", "high", "low", "tone", "noise", "then", "two", "clicks", "rising", "falling")
#: Tokens that Stable Audio's text encoder takes, the end mark included.
MAX_TOKENS = 16
#: Samples a second, and samples of a latent cell.
RATE, HOP = 4_000, 32
#: Latent cells of every sound of Stable Audio: a little more than a second.
LENGTH = 128
#: Tokens that AudioLDM 2's readers take, and how many its language model makes of them.
MAX_WORDS, MAX_LETTERS, NUM_GENERATED = 64, 256, 8
_TEXT_WIDTH, _WIDTH, _CHANNELS = 24, 16, 4


def write_stable_audio(
    folder: Path, *, is_told_angles: bool = False, audio_channels: int = 2
) -> Path:
    """Write a model like Stable Audio, or like Stable Audio Open, which is told angles."""
    torch.manual_seed(11)
    tokenizer = _make_t5_tokenizer(model_max_length=MAX_TOKENS)
    pipeline: Any = diffusers.StableAudioPipeline(  # type: ignore[no-untyped-call]
        vae=_make(
            "AutoencoderOobleck",
            encoder_hidden_size=2 * _CHANNELS,
            downsampling_ratios=[2, 4, 4],
            channel_multiples=[1, 2, 4],
            decoder_channels=_CHANNELS,
            decoder_input_channels=_CHANNELS,
            audio_channels=audio_channels,
            sampling_rate=RATE,
        ),
        text_encoder=_make_t5(len(tokenizer)),
        projection_model=_make(
            "StableAudioProjectionModel",
            text_encoder_dim=_TEXT_WIDTH,
            conditioning_dim=_WIDTH,
            min_value=0,
            max_value=2,
        ),
        tokenizer=tokenizer,
        transformer=_make(
            "StableAudioDiTModel",
            sample_size=LENGTH,
            in_channels=_CHANNELS,
            out_channels=_CHANNELS,
            num_layers=2,
            attention_head_dim=8,
            num_attention_heads=4,
            num_key_value_attention_heads=2,
            cross_attention_dim=_WIDTH,
            time_proj_dim=16,
            global_states_input_dim=2 * _WIDTH,
            cross_attention_input_dim=_WIDTH,
        ),
        scheduler=_make(
            "EDMDPMSolverMultistepScheduler",
            sigma_min=0.05,
            sigma_max=50.0,
            sigma_data=1.0,
            sigma_schedule="exponential",
            prediction_type="v_prediction",
        ),
    )
    pipeline.save_pretrained(folder)
    if is_told_angles:
        # Its class cannot be made without a library that nothing here needs.
        for name in ("model_index.json", "scheduler/scheduler_config.json"):
            text = (folder / name).read_text()
            (folder / name).write_text(text.replace("EDMDPMSolver", "CosineDPMSolver"))
    return folder


def write_audioldm2(folder: Path) -> Path:
    """Write a model like AudioLDM 2: three readers of prompts, and a vocoder behind the decoder."""
    torch.manual_seed(12)
    words, letters = _make_t5_tokenizer(model_max_length=MAX_WORDS), _make_roberta_tokenizer()
    pipeline: Any = diffusers.AudioLDM2Pipeline(  # type: ignore[no-untyped-call]
        vae=_make(
            "AutoencoderKL",
            block_out_channels=(8, 16),
            in_channels=1,
            out_channels=1,
            down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2,
            layers_per_block=1,
            latent_channels=_CHANNELS,
            norm_num_groups=4,
        ),
        text_encoder=_make_clap(len(letters)),
        text_encoder_2=_make_t5(len(words)),
        projection_model=_make(
            "AudioLDM2ProjectionModel",
            text_encoder_dim=_WIDTH,
            text_encoder_1_dim=_TEXT_WIDTH,
            langauge_model_dim=_WIDTH,
        ),
        language_model=_make_gpt2(),
        tokenizer=letters,
        tokenizer_2=words,
        feature_extractor=transformers.ClapFeatureExtractor(),
        unet=_make(
            "AudioLDM2UNet2DConditionModel",
            sample_size=32,
            in_channels=_CHANNELS,
            out_channels=_CHANNELS,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            block_out_channels=(8, 16),
            layers_per_block=1,
            norm_num_groups=4,
            attention_head_dim=4,
            cross_attention_dim=([None, _WIDTH, _TEXT_WIDTH],) * 2,
        ),
        scheduler=_make(
            "DDIMScheduler",
            beta_start=0.0015,
            beta_end=0.0195,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        vocoder=_make_vocoder(),
    )
    pipeline.save_pretrained(folder)
    return folder


def _make(name: str, **config: Any) -> Any:
    """Make one of diffusers' classes, which ship no type information."""
    return getattr(diffusers, name)(**config)


def _make_t5_tokenizer(*, model_max_length: int) -> Any:
    """Make a tokenizer that knows some words and spells the others."""
    space = "\N{LOWER ONE EIGHTH BLOCK}"
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), (space, -2.0)]
    pieces += [(letter, -6.0) for letter in (*string.ascii_lowercase, ",")]
    pieces += [(f"{space}{word}", -3.0) for word in WORDS]
    return transformers.T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=model_max_length)


def _make_roberta_tokenizer() -> Any:
    """Make a tokenizer that spells everything."""
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    vocab = {piece: n for n, piece in enumerate([*marks, *pre_tokenizers.ByteLevel.alphabet()])}
    return transformers.RobertaTokenizer(vocab=vocab, merges=[], model_max_length=MAX_LETTERS)


def _make_clap(vocab_size: int) -> Any:
    """Make CLAP: its text encoder is used, that of sounds comes with it."""
    text = {
        "vocab_size": vocab_size,
        "hidden_size": _WIDTH,
        "intermediate_size": 2 * _WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": MAX_LETTERS + 2,
        "projection_dim": _WIDTH,
    }
    audio = {
        "spec_size": 64,
        "window_size": 4,
        "num_mel_bins": 64,
        "hidden_size": _WIDTH,
        "patch_size": 4,
        "patch_stride": 2,
        "patch_embeds_hidden_size": 4,
        "depths": [1, 1],
        "num_hidden_layers": 2,
        "num_attention_heads": [2, 2],
        "projection_dim": _WIDTH,
    }
    config: Any = transformers.ClapConfig(
        text_config=text, audio_config=audio, projection_dim=_WIDTH
    )
    return transformers.ClapModel(config)


def _make_gpt2() -> Any:
    config: Any = transformers.GPT2Config(
        vocab_size=99,
        n_positions=MAX_WORDS + 16,
        n_embd=_WIDTH,
        n_layer=2,
        n_head=2,
        bos_token_id=0,
        eos_token_id=0,
    )
    config.max_new_tokens = NUM_GENERATED
    return transformers.GPT2LMHeadModel(config)


def _make_vocoder() -> Any:
    config: Any = transformers.SpeechT5HifiGanConfig(
        model_in_dim=8,
        sampling_rate=RATE,
        upsample_initial_channel=8,
        upsample_rates=[4, 2],
        upsample_kernel_sizes=[8, 4],
        resblock_kernel_sizes=[3],
        resblock_dilation_sizes=[[1, 3]],
        normalize_before=False,
        initializer_range=0.3,  # else nobody would hear a sample change
    )
    return transformers.SpeechT5HifiGan(config)


def _make_t5(vocab_size: int) -> Any:
    config: Any = transformers.T5Config(
        vocab_size=vocab_size,
        d_model=_TEXT_WIDTH,
        d_kv=8,
        d_ff=2 * _TEXT_WIDTH,
        num_layers=2,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    return transformers.T5EncoderModel(config)
