import pytest

from shared.catalog import Catalog
from shared.compatibility import STOCHASTIC, max_steps
from shared.vocab import Sampler, Schedule
from tests.fixtures.api import Api


def test_models_say_what_they_allow(api: Api, catalog: Catalog) -> None:
    models = api.client.get("/v1/models").json()["data"]
    assert [model["id"] for model in models] == list(catalog.models)
    (default,) = [model for model in models if model["is_default"]]
    spec = catalog.models[catalog.default]
    assert default["id"] == spec.id
    limits = ("width", "height", "max_width", "max_height", "latent_factor", "max_tokens")
    assert {name: default[name] for name in limits} == {
        name: getattr(spec, name) for name in limits
    }
    assert "path" not in default


def test_presets_say_what_they_stand_for(api: Api) -> None:
    presets = api.client.get("/v1/presets").json()["data"]
    assert [preset["name"] for preset in presets] == [
        "balanced", "creative", "precise", "fast", "reference",
    ]  # fmt: skip
    assert {preset["version"] for preset in presets} == {1}
    assert presets[3]["values"]["audio"] == {
        "sampler": "dpmpp_2m",
        "schedule": "native",
        "steps": 12,
        "guidance": 4.0,
        "guidance_rescale": 0.0,
    }


@pytest.mark.parametrize("params", [{}, {"model": "demo"}])
def test_the_table_of_samplers_has_every_cell(
    api: Api, catalog: Catalog, params: dict[str, str]
) -> None:
    table = api.client.get("/v1/samplers", params=params).json()
    spec = catalog.models["demo"]
    assert table["model"] == "demo"
    assert len(table["data"]) == len(Sampler) * len(Schedule)
    for cell in table["data"]:
        sampler, schedule = Sampler(cell["sampler"]), Schedule(cell["schedule"])
        most = max_steps(sampler, schedule, spec)
        assert cell["max_steps"] == most
        assert cell["supported"] == (most > 0)
        assert (cell["instead"] is None) == cell["supported"]
        assert (cell["reason"] is None) == (most == spec.training.num_train_timesteps)
        assert cell["deterministic"] == (sampler not in STOCHASTIC)


def test_what_the_table_allows_is_accepted_and_no_more(api: Api) -> None:
    for cell in api.client.get("/v1/samplers").json()["data"]:
        body = {name: cell[name] for name in ("sampler", "schedule")} | {"prompt": "p"}
        most = cell["max_steps"]
        if cell["supported"]:
            assert api.client.post("/v1/jobs", json=body | {"steps": most}).status_code == 202
            assert api.client.post("/v1/jobs", json=body | {"steps": most + 1}).status_code == 422
        else:
            answer = api.client.post("/v1/jobs", json=body | {"steps": 4})
            assert answer.status_code == 422
            (error,) = answer.json()["errors"]
            assert error["pointer"] == "#/schedule"
            assert cell["instead"] in error["detail"]
            better = body | {"sampler": cell["instead"], "steps": 4}
            assert api.client.post("/v1/jobs", json=better).status_code == 202
