import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.preview import MAX_BYTES, MAX_HEADER_BYTES, Preview, decode_preview

PREVIEW = Preview("job_1", 0, 3, b"picture\nwith a line end")
HEADER = {"job_id": "job_1", "output_index": 0, "iteration": 3, "content_type": "image/webp"}

previews = st.builds(
    Preview,
    job_id=st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
    output_index=st.integers(0, 999),
    iteration=st.integers(1, 999_999),
    data=st.binary(min_size=1, max_size=200),
)


@given(previews)
def test_what_was_encoded_is_decoded(preview: Preview) -> None:
    message = preview.encode()
    assert decode_preview(message) == preview
    assert len(message) - len(preview.data) <= MAX_HEADER_BYTES


@given(st.binary(max_size=600))
def test_any_bytes_are_a_preview_or_a_value_error(message: bytes) -> None:
    try:
        preview = decode_preview(message)
    except ValueError:
        return
    assert decode_preview(preview.encode()) == preview


@given(previews, st.data())
def test_a_spoiled_message_is_a_preview_or_a_value_error(
    preview: Preview, data: st.DataObject
) -> None:
    message = bytearray(preview.encode())
    place = data.draw(st.integers(0, len(message) - 1))
    message[place] = data.draw(st.integers(0, 255))
    del message[data.draw(st.integers(0, len(message))) :]
    with contextlib.suppress(ValueError):
        decode_preview(bytes(message))


@pytest.mark.parametrize(
    "change",
    [
        {"job_id": ""},
        {"job_id": "a\r\nb"},
        {"job_id": "x" * 65},
        {"job_id": 1},
        {"output_index": -1},
        {"output_index": True},
        {"iteration": 0},
        {"iteration": "3"},
        {"iteration": 1e3},
        {"content_type": "text/html"},
        {"prompt": "a red star"},
    ],
)
def test_a_header_that_says_anything_else_is_refused(change: dict[str, object]) -> None:
    message = json.dumps(HEADER | change).encode() + b"\nx"
    with pytest.raises(ValueError, match="validation error"):
        decode_preview(message)


@pytest.mark.parametrize("message", [b"", b"\n", b"[" * 100_000 + b"\nx", b"[" * 290 + b"\nx"])
def test_what_has_no_header_is_refused_quickly(message: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - which one is pydantic's affair
        decode_preview(message)


@pytest.mark.parametrize("size", [0, MAX_BYTES + 1])
def test_no_picture_and_too_much_of_it_are_refused_at_both_ends(size: int) -> None:
    with pytest.raises(ValueError, match="64000"):
        Preview("job_1", 0, 1, bytes(size)).encode()
    with pytest.raises(ValueError, match="64000"):
        decode_preview(json.dumps(HEADER).encode() + b"\n" + bytes(size))
