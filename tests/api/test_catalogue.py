from dataclasses import replace

import pytest
import sqlalchemy as sa

from shared.catalog import Catalog
from shared.compatibility import CONSISTENCY, STOCHASTIC, find_start_refusal, max_steps
from shared.db.presence import WorkerRepository
from shared.holding import Holding, HoldingState, Stock
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
    assert default["workers"] == []


def test_models_say_which_workers_hold_them(api: Api, database: sa.Engine) -> None:
    workers = WorkerRepository(database)
    warm = Holding("demo", HoldingState.WARM, 26_000_000)
    coming = Holding("demo", HoldingState.LOADING, 30_000_000, 0.25)
    broken = Holding("demo", HoldingState.FAILED, reason="model demo cannot be loaded")
    other = Holding("not-in-the-catalog", HoldingState.WARM, 1)
    for name, stock in (
        ("a", Stock(("demo.batch",), (warm, other), 60_000_000)),
        ("b", Stock((), (coming,))),
        ("c", Stock((), (broken,), 1)),
        ("silent", Stock((), (warm,))),
    ):
        workers.beat(f"{name}@host:1", device="cpu x", queues=["demo.batch"], slots=1, stock=stock)
    with database.begin() as connection:
        long_ago = "SET heartbeat_at = now() - interval '61 s' WHERE id LIKE 'silent%'"
        connection.execute(sa.text(f"UPDATE workers {long_ago}"))
    answer = api.client.get("/v1/models")
    assert answer.headers["Cache-Control"] == "private, no-cache"
    body = answer.json()
    empty = {"device": "cpu x", "bytes": None, "progress": None, "reason": None}
    assert body["data"][0]["workers"] == [
        empty | {"worker": "a", "state": "warm", "bytes": 26_000_000},
        empty | {"worker": "b", "state": "loading", "bytes": 30_000_000, "progress": 0.25},
        empty | {"worker": "c", "state": "failed", "reason": "model demo cannot be loaded"},
    ]
    rooms = [(w["worker"], w["used_bytes"], w["budget_bytes"]) for w in body["workers"]]
    assert rooms == [("a", 26_000_001, 60_000_000), ("b", 30_000_000, None), ("c", 0, 1)]


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
        assert cell["starts_midway"] == (find_start_refusal(sampler, 10, 0.5) is None)


@pytest.mark.parametrize("switch", [{}, {"allow_undistilled": True}])
def test_what_the_table_allows_is_accepted_and_no_more(api: Api, switch: dict[str, bool]) -> None:
    for cell in api.client.get("/v1/samplers", params=switch).json()["data"]:
        body = {name: cell[name] for name in ("sampler", "schedule")} | {"prompt": "p"} | switch
        most = cell["max_steps"]
        if cell["supported"]:
            assert api.client.post("/v1/jobs", json=body | {"steps": most}).status_code == 202
            assert api.client.post("/v1/jobs", json=body | {"steps": most + 1}).status_code == 422
        else:
            answer = api.client.post("/v1/jobs", json=body | {"steps": 4})
            assert answer.status_code == 422
            (error,) = answer.json()["errors"]
            is_foreign = "needs a distilled" in cell["reason"] or " is for " in cell["reason"]
            assert error["pointer"] == ("#/sampler" if is_foreign else "#/schedule")
            assert cell["instead"] in error["detail"]
            better = body | {
                "sampler": cell["instead"],
                "schedule": cell["instead_schedule"],
                "steps": 4,
            }
            assert api.client.post("/v1/jobs", json=better).status_code == 202


@pytest.mark.parametrize("sampler", sorted(CONSISTENCY))
def test_a_consistency_sampler_needs_a_distilled_model_or_the_callers_word(
    api: Api, sampler: str
) -> None:
    body = {"prompt": "p", "sampler": sampler, "schedule": "native", "steps": 4, "guidance": 1}
    answer = api.client.post("/v1/jobs", json=body)
    assert answer.status_code == 422
    (error,) = answer.json()["errors"]
    assert error["pointer"] == "#/sampler"
    assert "allow_undistilled" in error["detail"]
    assert api.submit(**body, allow_undistilled=True)["request"]["allow_undistilled"] is True
    allowed = body | {"allow_undistilled": True}
    for change, says in ({"steps": 51}, "at most 50"), ({"schedule": "karras"}, "dpmpp_2m_sde can"):
        answer = api.client.post("/v1/jobs", json=allowed | change)
        assert answer.status_code == 422
        assert says in answer.json()["errors"][0]["detail"]


def test_a_distilled_model_takes_consistency_samplers_and_has_presets_of_its_own(
    api: Api, catalog: Catalog
) -> None:
    distilled = replace(catalog.models["demo"], is_distilled=True, presets={})
    resolver = replace(api.services.resolver, catalog=replace(catalog, models={"demo": distilled}))
    client = api.new_client(resolver=resolver)
    assert client.get("/v1/models").json()["data"][0]["distilled"] is True
    cells = client.get("/v1/samplers").json()["data"]
    (lcm,) = [c for c in cells if (c["sampler"], c["schedule"]) == ("lcm", "native")]
    assert (lcm["supported"], lcm["max_steps"]) == (True, 50)
    assert lcm["reason"] == "distillation visited 50 timesteps"
    for preset in api.client.get("/v1/presets").json()["data"]:
        body = {"prompt": "p", "preset": preset["name"]}
        request = client.post("/v1/jobs", json=body).json()["request"]
        assert preset["distilled"].items() <= request.items()
        assert (request["sampler"], request["steps"], request["guidance"]) == ("lcm", 4, 1)


def test_an_ordinary_model_refuses_flow_and_edm_samplers_with_the_nearest(api: Api) -> None:
    for sampler, nearest in ("flow_euler", "euler"), ("flow_heun", "heun"), ("edm_dpmpp_2m", "dpm"):
        body = {"prompt": "p", "sampler": sampler, "schedule": "karras", "allow_undistilled": True}
        (error,) = api.client.post("/v1/jobs", json=body).json()["errors"]
        assert error["pointer"] == "#/sampler"
        assert "models; demo is one of diffusion; " + nearest in error["detail"]


def test_a_zero_terminal_snr_model_takes_what_knows_it(api: Api, catalog: Catalog) -> None:
    demo = catalog.models["demo"]
    rescaled = replace(demo, training=replace(demo.training, zero_terminal_snr=True))
    resolver = replace(api.services.resolver, catalog=replace(catalog, models={"demo": rescaled}))
    client = api.new_client(resolver=resolver)
    assert client.get("/v1/models").json()["data"][0]["zero_terminal_snr"] is True
    for fields, says in (
        ({"sampler": "heun"}, "trained to zero signal, as demo was; dpmpp_2m can"),
        ({"schedule": "beta"}, "has signal; dpmpp_2m on the native schedule can"),
        ({"sampler": "ddpm", "schedule": "karras"}, "has signal; dpmpp_2m_sde can"),
    ):
        (error,) = client.post("/v1/jobs", json={"prompt": "p"} | fields).json()["errors"]
        assert says in error["detail"]
    assert client.post("/v1/jobs", json={"prompt": "p", "schedule": "cosine"}).status_code == 202
