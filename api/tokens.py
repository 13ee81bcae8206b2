"""Count a prompt's tokens as the model's text encoder will, without torch."""

from pathlib import Path

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from shared.catalog import Catalog, ModelSpec
from shared.errors import ConfigurationError

_START, _END = "<|startoftext|>", "<|endoftext|>"
#: How CLIP splits text into words (Radford et al., 2021): contractions, letters, digits, the rest.
_WORDS = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
    r"|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


class TokenCounter:
    """The tokenizers of all models that read text, loaded once."""

    def __init__(self, catalog: Catalog) -> None:
        """Load them.

        Raises:
            ConfigurationError: A model's tokenizer cannot be read.
        """
        self._tokenizers = {spec.id: _load(spec) for spec in catalog if spec.labels is None}

    def count(self, model_id: str, text: str) -> int:
        """Count tokens, start and end marks included."""
        return len(self._tokenizers[model_id].encode(text).ids)


def _load(spec: ModelSpec) -> Tokenizer:
    folder = spec.path / "tokenizer"
    whole = folder / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(whole)) if whole.exists() else _make_clip(folder)
    except Exception as error:  # the library raises nothing narrower
        raise ConfigurationError(f"model {spec.id}: its tokenizer cannot be read") from error
    # A file may carry the length that its texts were cut and filled to.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _make_clip(folder: Path) -> Tokenizer:
    """Build CLIP's tokenizer from the two files that older models ship."""
    vocab, merges = BPE.read_file(str(folder / "vocab.json"), str(folder / "merges.txt"))
    tokenizer = Tokenizer(
        BPE(
            vocab=vocab,
            merges=merges,
            continuing_subword_prefix="",
            end_of_word_suffix="</w>",
            fuse_unk=False,
            unk_token=_END,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}",
        special_tokens=[(mark, vocab[mark]) for mark in (_START, _END)],
    )
    tokenizer.add_special_tokens([_START, _END])
    return tokenizer
