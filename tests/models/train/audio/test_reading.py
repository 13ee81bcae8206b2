"""The tokenizer knows the captions' words, and the text encoder is asked what they say."""

import random
from pathlib import Path

from transformers import T5Tokenizer, T5TokenizerFast

from models.train.audio.reading import QUESTIONS, answer
from models.train.audio.sounds import draw_caption, draw_sound
from models.train.audio.tokenizer import MAX_TOKENS, SPACE, make_tokenizer


def test_every_word_of_a_caption_is_one_token_after_loading_too(tmp_path: Path) -> None:
    make_tokenizer(tmp_path)
    rng = random.Random(1)
    captions = [draw_caption(rng, draw_sound(rng, two_phrases=0.7)).text for _ in range(1000)]
    for loaded in (
        T5TokenizerFast.from_pretrained(tmp_path),
        T5Tokenizer.from_pretrained(tmp_path),
    ):
        assert loaded.model_max_length == MAX_TOKENS
        for text in captions:
            words = text.replace(", then", " , then").split()
            assert loaded.tokenize(text) == [w if w == "," else f"{SPACE}{w}" for w in words]
            ids = loaded(text).input_ids
            assert ids[-1] == loaded.eos_token_id
            assert len(ids) <= MAX_TOKENS - 4


def test_an_unknown_word_is_spelled_and_an_unknown_letter_breaks_nothing(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    assert tokenizer.unk_token_id not in tokenizer("a zebra").input_ids
    assert tokenizer.unk_token_id in tokenizer("a \N{GREEN HEART}").input_ids


def test_the_answers_are_what_the_caption_says_and_nothing_else() -> None:
    rng = random.Random(2)
    for _ in range(500):
        caption = draw_caption(rng, draw_sound(rng, two_phrases=0.5))
        said = [
            choices[number - 1]
            for choices, number in zip(QUESTIONS, answer(caption), strict=True)
            if number
        ]
        words = []
        for word in caption.text.replace(",", "").split():
            singular = word.removesuffix("s")
            words += [singular if singular in ("tone", "noise", "click") else word]
        # Of a sweep the caption says that it is a tone, too.
        sweeps = said.count("rising") + said.count("falling")
        assert sorted([*said, *["tone"] * sweeps, *["then"] * ("then" in words)]) == sorted(words)
