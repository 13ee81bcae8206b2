"""What the text encoder is asked, and that it can learn to answer."""

import random
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from models.train.denoiser import make_denoiser
from models.train.journal import Journal
from models.train.parallel import Rank
from models.train.reading import QUESTIONS, answer, teach_reading
from models.train.tokenizer import make_tokenizer
from models.train.world import Caption, Object, Position, Relation, Scene, draw_caption, draw_scene


def words_of(caption: Caption) -> list[str | None]:
    return [
        choices[number - 1] if number else None
        for choices, number in zip(QUESTIONS, answer(caption), strict=True)
    ]


def test_the_answers_are_what_the_caption_says_and_nothing_else() -> None:
    rng = random.Random(3)
    for _ in range(500):
        caption = draw_caption(rng, draw_scene(rng, two_objects=0.5))
        said = [word for word in words_of(caption) if word is not None]
        glue = {"a", "an", "on", "to", "background", "gradient"}
        assert sorted(" ".join(said).split()) == sorted(
            word for word in caption.text.split() if word not in glue
        )


def test_what_is_unsaid_has_no_answer() -> None:
    thing = Object("star", "red", "large", 32, 20, 20)
    scene = Scene((thing,), ("white", "blue"), Position.TOP_LEFT, None)
    silent = Caption(scene, says_size=(False,), says_position=False, says_background=False)
    assert [word for word in words_of(silent) if word] == ["star", "red"]
    talkative = Caption(scene, says_size=(True,), says_position=True, says_background=True)
    assert [word for word in words_of(talkative) if word] == [
        "star", "red", "large", Position.TOP_LEFT, "white", "blue",
    ]  # fmt: skip


def test_a_relation_is_asked_from_the_first_object() -> None:
    things = (
        Object("frog", None, "small", 16, 40, 20),
        Object("ring", "blue", "small", 16, 10, 20),
    )
    scene = Scene(things, ("white",), None, Relation.RIGHT)
    caption = Caption(scene, says_size=(False, False), says_position=False, says_background=False)
    assert [word for word in words_of(caption) if word] == ["frog", "ring", "blue", "right of"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_text_encoder_learns_to_answer(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, seed=0)
    tokenizer = CLIPTokenizer.from_pretrained(tmp_path)
    encoder = make_denoiser(tokenizer, seed=0).text_encoder
    journal = Journal(tmp_path / "reading.csv", every=50)
    teach_reading(encoder, tokenizer, journal, Rank(0, 1), steps=100, two_objects=0.5)
    right = [
        float(line.split(",")[3]) for line in (tmp_path / "reading.csv").read_text().split()[1:]
    ]
    assert right[0] < 0.2 < 0.3 < right[-1]
