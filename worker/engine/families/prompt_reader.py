"""Turn prompts into the tokens of one text encoder."""

import threading
from pathlib import Path
from typing import Any

from torch import Tensor

from shared.errors import InvalidInput


class PromptReader:
    """A tokenizer that any thread may use; one alone cannot be used by two at once."""

    def __init__(self, cls: Any, folder: Path, *, max_tokens: int | None = None) -> None:
        """Load a tokenizer; it fills prompts up to its own most tokens unless others are given."""
        self._tokenizer = cls.from_pretrained(folder, local_files_only=True)
        self._max_tokens = max_tokens or self._tokenizer.model_max_length
        self._lock = threading.Lock()

    def read(self, prompt: str) -> Tensor:
        """Turn a prompt into tokens [1, T].

        Raises:
            InvalidInput: It has more tokens than the text encoder takes.
        """
        tokens = self._tokenize(prompt, truncation=False)
        if tokens.shape[1] > self._max_tokens:
            raise InvalidInput(
                f"the prompt has {tokens.shape[1]} tokens, the model takes {self._max_tokens}"
            )
        return tokens

    def read_beginning(self, prompt: str) -> Tensor:
        """Turn as much of a prompt into tokens [1, T] as fits; another encoder reads all of it."""
        return self._tokenize(prompt, truncation=True)

    def _tokenize(self, prompt: str, *, truncation: bool) -> Tensor:
        with self._lock:
            ids: Tensor = self._tokenizer(
                prompt,
                padding="max_length",
                max_length=self._max_tokens,
                truncation=truncation,
                return_tensors="pt",
            ).input_ids
        return ids
