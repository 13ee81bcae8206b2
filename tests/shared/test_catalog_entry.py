from pathlib import Path

import pytest

from models import CATALOG
from shared.catalog import Catalog
from shared.catalog_entry import ModelEntry
from shared.errors import ConfigurationError

FOLDER = CATALOG.parent / "demo"
HASH = "0123456789abcdef0123456789abcdef01234567"
GOOD = {"path": f'"{FOLDER}"', "revision": '"1"', "max_width": "64", "max_height": "64"}


def load(folder: Path, **changes: str | None) -> Catalog:
    fields = {name: text for name, text in (GOOD | changes).items() if text is not None}
    lines = [f"{name} = {text}" for name, text in fields.items()]
    path = folder / "catalog.toml"
    path.write_text('default = "net"\n[models.net]\n' + "\n".join(lines))
    return Catalog.load(path)


def test_what_is_left_out_is_read_from_the_models_files_or_usual(tmp_path: Path) -> None:
    spec = load(tmp_path).models["net"]
    assert (spec.family, spec.width, spec.height) == ("stable_diffusion", 64, 64)
    assert (spec.exact_rows, spec.max_rows, spec.repo) == (8, 8, None)


def test_the_largest_picture_is_the_usual_one_unless_more_is_said(tmp_path: Path) -> None:
    spec = load(tmp_path, max_width=None, max_height=None, height="32").models["net"]
    assert (spec.max_width, spec.max_height) == (64, 64)


def test_what_is_said_goes_first(tmp_path: Path) -> None:
    changes = {"family": '"stable_diffusion"', "medium": '"image"', "device.dtype": '"bfloat16"'}
    sizes = {"width": "32", "height": "48", "exact_rows": "16"}
    spec = load(tmp_path, **changes, **sizes).models["net"]
    assert (spec.device_options.dtype, spec.width, spec.height) == ("bfloat16", 32, 48)
    assert (spec.exact_rows, spec.max_rows) == (16, 16)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"path": None}, "models.net: give either path, a folder, or repo, a hub repository"),
        ({"repo": '"a/b"'}, "models.net: give either path"),
        (
            {"path": None, "repo": '"a/b"', "revision": '"main"'},
            "models.net: revision of a repo has to be the full hash of a commit, 40 digits",
        ),
        ({"path": None, "repo": '"a/b"', "revision": f'"{HASH[:7]}"'}, "full hash of a commit"),
        (
            {"path": None, "repo": '"../b"', "revision": f'"{HASH}"'},
            "net.repo: has to match",
        ),
        ({"revision": None}, "models.net.revision: is missing: Which state of the model"),
        ({"max_rowz": "4"}, "models.net.max_rowz: there is no such field; there are path"),
        (
            {"presets.fast.stepz": "4"},
            "fast.stepz: there is no such field; there are sampler",
        ),
        ({"presets.fast.sampler": '"eulre"'}, "models.net.presets.fast.sampler: .*'euler'"),
        ({"device.dtype": '"int8"'}, "net.device.dtype: .*'float32', 'bfloat16' or 'float16'"),
        ({"dtype": '"bfloat16"'}, "models.net.dtype: there is no such field; .*device"),
        ({"device.tf32": "true"}, "net.device.tf32: there is no such field; there are dtype"),
        ({"family": '"flux"'}, "model net: family is 'flux', but its files are those of a Stable"),
        ({"medium": '"audio"'}, "medium is 'audio', but stable_diffusion models make 'image'"),
        ({"width": "128"}, "models.net: width 128 is above max_width 64; raise that"),
        ({"max_height": "32"}, "max_height 32 is below the 64 pixels that it was made for; raise"),
        ({"width": "42"}, "width 42 is no multiple of 4, the pixels of a latent's cell; 40 is"),
        (
            {"exact_rows": "16", "max_rows": "8"},
            "models.net: exact_rows 16 is above max_rows 8; raise that, or leave it out",
        ),
        ({"duration_s": "3"}, "models make 'image', which has no duration_s; leave it out"),
        ({"max_rows": "0"}, "models.net.max_rows: .*greater than or equal to 1"),
    ],
)
def test_a_contradictory_or_unknown_entry_is_refused_with_what_would_work(
    tmp_path: Path, changes: dict[str, str | None], complaint: str
) -> None:
    with pytest.raises(ConfigurationError, match=complaint):
        load(tmp_path, **changes)


def test_every_field_says_what_it_is_for() -> None:
    assert all(field.description for field in ModelEntry.model_fields.values())
