"""A CLIP tokenizer for the words of captions."""

import json
import random
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from models.train.world import draw_caption, draw_scene

NUM_CAPTIONS = 6000
#: More than merges are ever found: training stops when each word is one token.
MAX_VOCABULARY = 2000
#: Tokens of a prompt, start and end counted.
MAX_TOKENS = 24
START, END = "<|startoftext|>", "<|endoftext|>"


def make_tokenizer(folder: Path, *, seed: int) -> None:
    """Train byte-level BPE on captions and write it in CLIP's layout."""
    rng = random.Random(seed)  # noqa: S311 - pictures, not secrets
    captions = [
        draw_caption(rng, draw_scene(rng, two_objects=0.5)).text for _ in range(NUM_CAPTIONS)
    ]
    tokenizer = Tokenizer(models.BPE(unk_token=END, end_of_word_suffix="</w>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=MAX_VOCABULARY,
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder, merges)


def _write(folder: Path, merges: list[tuple[str, str]]) -> None:
    # CLIP's order: bytes, bytes that end a word, merges, start and end.
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges), START, END]
    vocabulary = {word: number for number, word in enumerate(dict.fromkeys(words))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": MAX_TOKENS,
        "bos_token": START,
        "eos_token": END,
        "unk_token": END,
        "pad_token": END,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2))
