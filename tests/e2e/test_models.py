"""More models than a worker has room for, from the outside."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from models import CATALOG
from tests.fixtures.stack import JsonObject, Stack, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
#: Room for one copy of the demo model, which takes 26 MB.
BUDGET = 40_000_000
MODELS = ("one", "two", "broken")


@pytest.fixture(scope="module")
def crowded(server_folder: Path) -> Iterator[Stack]:
    """A LatentQ of one worker with two models and one whose weights are none."""
    folder = server_folder / "crowded"
    shutil.copytree(CATALOG.parent / "demo", folder / "broken-model")
    (weights,) = (folder / "broken-model" / "unet").glob("*.safetensors")
    weights.write_bytes(b"nothing of the kind")
    paths = dict.fromkeys(MODELS, CATALOG.parent / "demo") | {"broken": folder / "broken-model"}
    entries = [
        f'[models.{name}]\npath = "{path}"\nrevision = "1"\nmax_width = 64\nmax_height = 64\n'
        for name, path in paths.items()
    ]
    (folder / "catalog.toml").write_text('default = "one"\n' + "\n".join(entries))
    variables = {
        "LATENTQ_CATALOG": str(folder / "catalog.toml"),
        "LATENTQ_MODEL_MEMORY": str(BUDGET),
    }
    with Stack(folder / "data", workers=1, **variables) as stack:
        yield stack


def states_of(stack: Stack) -> dict[str, str]:
    """Say which model is in which state in the one worker, once it has told of itself."""
    body: JsonObject = stack.http.get("/v1/models").json()
    for worker in body["workers"]:
        assert worker["used_bytes"] <= worker["budget_bytes"] == BUDGET
    return {model["id"]: one["state"] for model in body["data"] for one in model["workers"]}


def test_models_take_turns_and_both_serve(crowded: Stack) -> None:
    wait_until(lambda: states_of(crowded).get("one") == "warm", timeout_s=60)
    prompt = "a red star"
    jobs = [crowded.submit(prompt=prompt, model=model, steps=3) for model in ("one", "two")]
    ended = crowded.wait([job["id"] for job in jobs])
    assert [job["status"] for job in ended] == ["succeeded", "succeeded"]
    first, second = (job["artifacts"][0]["url"] for job in ended)
    assert first != second
    wait_until(lambda: states_of(crowded).get("two") == "warm", timeout_s=30)
    assert "one" not in states_of(crowded)


def test_a_broken_model_fails_its_jobs_with_a_sentence_and_no_others(crowded: Stack) -> None:
    jobs = [
        crowded.submit(prompt="a red star", model=model, steps=2) for model in ("broken", "one")
    ]
    broken, well = crowded.wait([job["id"] for job in jobs])
    assert broken["error"]["code"] == "model_unavailable"
    assert broken["error"]["message"].startswith("model broken cannot be loaded; it is tried again")
    assert well["status"] == "succeeded"
    wait_until(lambda: states_of(crowded).get("broken") == "failed", timeout_s=30)
    assert str(crowded.data_dir.parent) not in json.dumps(broken)
