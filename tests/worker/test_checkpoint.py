"""The file of a state: what goes in comes out, and nothing else is taken for one."""

import dataclasses
import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import worker.checkpoint
from models import CATALOG
from shared.adapters import AdapterSpec
from shared.catalog import Catalog, ModelSpec
from shared.device_options import Attention, DeviceOptions
from shared.request import GenerationRequest
from tests.worker.engine.conftest import request
from worker.checkpoint import (
    CheckpointUnusable,
    Circumstances,
    decode_checkpoint,
    describe_circumstances,
    encode_checkpoint,
)
from worker.engine import JobState
from worker.engine.state import Conditions, OutputState

SHELF = Catalog.load(CATALOG)
SPEC, ADAPTERS = SHELF.models["demo"], SHELF.adapters
GRAY = {"adapters": [{"id": "gray", "weight": 1.0}]}
VERSIONS = {"torch": "2.13.0", "diffusers": "0.42.1"}


def describe(
    asked: GenerationRequest = request(**GRAY),  # noqa: B008 - never changed
    *,
    spec: ModelSpec = SPEC,
    versions: Mapping[str, str] = MappingProxyType(VERSIONS),
    adapters: Mapping[str, AdapterSpec] = MappingProxyType(dict(ADAPTERS)),
) -> Circumstances:
    return describe_circumstances(asked, spec, versions, adapters)


HERE = describe()


def make_state(num_outputs: int = 2) -> JobState:
    return JobState(
        Conditions("float32", "cpu", 1, 8),
        tuple(
            OutputState(
                iteration=3 + n,
                row_sum=8.5,
                latents=torch.randn(1, 4, 2, 3),
                generator=torch.Generator().manual_seed(n).get_state(),
                scheduler="SomeScheduler",
                values={
                    "_step_index": 3,
                    "model_outputs": [None, torch.randn(1, 4, 2, 3)],
                    "timestep_list": [torch.tensor(981), torch.tensor(961)],
                    "dt": torch.tensor(0.1).double(),
                    "is_scale_input_called": True,
                    "sigma_data": 0.1 + 0.2,
                    "nested": [[], [float("inf"), "text"]],
                    "sample": None,
                },
            )
            for n in range(num_outputs)
        ),
    )


STATE = make_state()
FILE = encode_checkpoint(STATE, HERE)


def assert_equal(one: Any, other: Any) -> None:
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert torch.equal(one, other)
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_equal(*pair)
    elif isinstance(one, dict):
        assert set(one) == set(other)
        for name in one:
            assert_equal(one[name], other[name])
    elif dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_equal(getattr(one, field.name), getattr(other, field.name))
    else:
        assert type(one) is type(other)
        assert one == other


def test_what_was_written_is_read() -> None:
    assert_equal(decode_checkpoint(FILE, HERE), STATE)
    assert decode_checkpoint(FILE, HERE).iteration == 7
    # Nothing in it says what was asked for.
    assert request().prompt.encode() not in FILE
    assert b"pickle" not in FILE


@pytest.mark.parametrize(
    ("says", "there"),
    {
        "request": describe(request(seed=8, **GRAY)),
        "revision": describe(spec=dataclasses.replace(SPEC, revision="0")),
        "model": describe(spec=dataclasses.replace(SPEC, id="b")),
        "versions": describe(versions=VERSIONS | {"torch": "2.12.0"}),
        "device_options": describe(
            spec=dataclasses.replace(SPEC, device_options=DeviceOptions(attention=Attention.EAGER))
        ),
        "adapters": describe(
            adapters={"gray": dataclasses.replace(ADAPTERS["gray"], revision="0")}
        ),
    }.items(),
)
def test_a_foreign_one_is_refused_and_says_what_differs(says: str, there: dict[str, Any]) -> None:
    with pytest.raises(CheckpointUnusable, match=f"its {says} was"):
        decode_checkpoint(encode_checkpoint(STATE, there), HERE)


def test_one_of_a_newer_schema_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(worker.checkpoint, "SCHEMA", 2)
        newer = encode_checkpoint(STATE, HERE)
    with pytest.raises(CheckpointUnusable, match="its schema is 2, this worker's is 1"):
        decode_checkpoint(newer, HERE)


def test_a_default_that_nobody_asked_for_makes_no_job_another() -> None:
    asked = json.loads(request().model_dump_json(exclude_defaults=True))
    assert "strength" not in asked
    assert "not_before" not in asked


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(FILE) - 1))
def test_a_part_of_one_is_refused(length: int) -> None:
    with pytest.raises(CheckpointUnusable):
        decode_checkpoint(FILE[:length], HERE)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 8 * len(FILE) - 1))
def test_one_with_a_wrong_bit_is_refused_or_says_the_same(bit: int) -> None:
    spoilt = bytearray(FILE)
    spoilt[bit // 8] ^= 1 << bit % 8
    try:
        state = decode_checkpoint(bytes(spoilt), HERE)
    except CheckpointUnusable:
        return
    assert_equal(state, STATE)


@given(st.binary(max_size=200))
def test_whatever_else_lies_there_is_refused(data: bytes) -> None:
    for file in (data, FILE + data[:1] + b"x", len(data).to_bytes(8, "little") + data):
        with pytest.raises(CheckpointUnusable):
            decode_checkpoint(file, HERE)


def test_a_document_that_is_not_what_it_should_be_is_refused() -> None:
    for content in ({}, {"fingerprint": {}}, {"fingerprint": dict(HERE), "outputs": []}, []):
        document = json.dumps(content)
        metadata = {
            "schema": "1",
            "document": document,
            "sha256": worker.checkpoint._digest(document, {}),
        }
        with pytest.raises(CheckpointUnusable, match="broken"):
            decode_checkpoint(worker.checkpoint.safetensors.torch.save({}, metadata), HERE)
