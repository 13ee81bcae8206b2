"""A T5 tokenizer for the words of captions."""

from pathlib import Path
from string import ascii_lowercase, digits

from transformers import T5Tokenizer

from models.train.audio.sounds import AMPLITUDES, NUMBERS, Kind, Pitch, Tempo

#: Tokens of a prompt, its end counted.
MAX_TOKENS = 20
PAD, END, UNKNOWN = "<pad>", "</s>", "<unk>"
#: What begins a word.
SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
WORDS = (
    *NUMBERS,
    *(number.capitalize() for number in NUMBERS),
    "then",
    *AMPLITUDES,
    *Tempo,
    *Pitch,
    *Kind,
    *(f"{kind}s" for kind in (Kind.TONE, Kind.NOISE, Kind.CLICK)),
)
#: Log-probabilities: a word beats its letters.
WORD_SCORE, LETTER_SCORE = -1.0, -10.0


def make_tokenizer(folder: Path) -> T5Tokenizer:
    """Write a tokenizer with one token for each word; others are spelled."""
    vocabulary = [
        (PAD, 0.0),
        (END, 0.0),
        (UNKNOWN, 0.0),
        *((f"{SPACE}{word}", WORD_SCORE) for word in WORDS),
        (",", WORD_SCORE),
        *((letter, LETTER_SCORE) for letter in (SPACE, *ascii_lowercase, *digits, "-", "'", ".")),
    ]
    tokenizer = T5Tokenizer(
        vocab=vocabulary, extra_ids=0, additional_special_tokens=[], model_max_length=MAX_TOKENS
    )
    tokenizer.save_pretrained(folder)
    return tokenizer
