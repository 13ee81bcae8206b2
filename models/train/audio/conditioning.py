"""What the denoiser is told: the words of the prompt, and how long the sound is.

As the stock pipeline puts it together, so that a model learns from what it will be given.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import T5EncoderModel, T5Tokenizer


class Conditioning(NamedTuple):
    """What one batch is told."""

    words: Tensor  # [B, MAX_TOKENS + 2, C]: the prompt's tokens, its beginning and its end
    seconds: Tensor  # [B, 1, 2 * C]: beginning and end once more


def condition(
    text_encoder: T5EncoderModel,
    projection: Any,
    tokenizer: T5Tokenizer,
    texts: list[str],
    ends: Tensor,
) -> Conditioning:
    """Encode prompts, and recordings from their beginning to `ends`, [B], in seconds."""
    tokens = tokenizer(texts, padding="max_length", truncation=True, return_tensors="pt")
    words = text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask)[0]
    projected = projection(
        text_hidden_states=words, start_seconds=torch.zeros_like(ends), end_seconds=ends
    )
    words = projected.text_hidden_states * tokens.attention_mask[..., None]
    start, end = projected.seconds_start_hidden_states, projected.seconds_end_hidden_states
    return Conditioning(torch.cat([words, start, end], dim=1), torch.cat([start, end], dim=2))


def drop(conditioning: Conditioning, is_dropped: Tensor) -> Conditioning:
    """Tell the rows where `is_dropped`, [B], nothing: what guidance compares with."""
    kept = (~is_dropped).float()[:, None, None]
    return conditioning._replace(words=conditioning.words * kept)
