"""Turn prompts of audio models into tokens, and the mask of those that say something."""

import json
import threading
from pathlib import Path
from typing import Any, NamedTuple

import transformers
from torch import Tensor

from shared.errors import InvalidInput


class Tokens(NamedTuple):
    """Tokens [1, T], and 1 where they are not padding [1, T]."""

    ids: Tensor
    mask: Tensor


def class_of(folder: Path, part: str) -> str:
    """Return the class of a part of a diffusers folder, as its index names it."""
    name: str = json.loads((folder / "model_index.json").read_text())[part][1]
    return name


class PromptTokenizer:
    """A tokenizer that any thread may use; one alone cannot be used by two at once."""

    def __init__(self, folder: Path, name: str) -> None:
        """Load the tokenizer that a diffusers folder has under a name."""
        cls = getattr(transformers, class_of(folder, name))
        self._tokenizer: Any = cls.from_pretrained(folder / name, local_files_only=True)
        self._lock = threading.Lock()

    @property
    def max_tokens(self) -> int:
        """The most that it takes."""
        return int(self._tokenizer.model_max_length)

    def __call__(self, prompt: str, *, length: int | None = None) -> Tokens:
        """Turn a prompt into tokens, filled up to a length if one is given.

        Raises:
            InvalidInput: It has more than the model takes.
        """
        padding = {} if length is None else {"padding": "max_length", "max_length": length}
        with self._lock:
            found = self._tokenizer(prompt, **padding, truncation=False, return_tensors="pt")
        num_tokens = found.input_ids.shape[1]
        if num_tokens > self.max_tokens:
            raise InvalidInput(
                f"the prompt has {num_tokens} tokens, the model takes {self.max_tokens}"
            )
        return Tokens(found.input_ids, found.attention_mask)
