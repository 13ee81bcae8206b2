import math

import pytest
import sqlalchemy as sa

from shared.db.costs import CostRepository
from shared.db.presence import WorkerRepository
from shared.db.session import make_engine
from shared.estimate import CostCell, Stage, Workload
from worker.costs import CostKeeper
from worker.engine.cost import Cost, CostModel
from worker.engine.trajectory import DecodeKey, ForwardKey
from worker.presence import Presence

FORWARD = ForwardKey("demo", (1, 4, 16, 16), 77)
DECODE = DecodeKey("demo", (1, 4, 16, 16))
OTHER = ForwardKey("other", (1, 4, 16, 16), 77)
#: Where nobody listens.
AWAY = "postgresql://nobody:nothing@127.0.0.1:1/nowhere"


@pytest.fixture
def repository(database: sa.Engine) -> CostRepository:
    return CostRepository(database)


@pytest.fixture
def costs() -> CostModel:
    model = CostModel()
    model.load([Cost(FORWARD, 1, 10.0, 5), Cost(FORWARD, 8, 20.0, 5), Cost(DECODE, 1, 50.0, 5)])
    return model


def written_at(database: sa.Engine) -> dict[str, list[object]]:
    """When each workload's cells were written, by rows."""
    found: dict[str, list[object]] = {}
    with database.connect() as connection:
        query = sa.text("SELECT workload, updated_at FROM costs ORDER BY workload, rows")
        for row in connection.execute(query):
            found.setdefault(row.workload, []).append(row.updated_at)
    return found


def test_another_worker_on_the_same_kind_of_device_starts_from_what_one_learned(
    repository: CostRepository, costs: CostModel
) -> None:
    costs.load([Cost(OTHER, 2, 30.0, 5), Cost(FORWARD._replace(num_adapters=2), 8, 25.0, 5)])
    CostKeeper(repository, costs, device="cpu").save()
    recalled = CostKeeper(repository, CostModel(), device="cpu").recall("demo")
    assert set(recalled) == {cost for cost in costs.table() if cost.key != OTHER}
    assert CostKeeper(repository, CostModel(), device="cuda").recall("demo") == []


def test_only_what_moved_is_written_again(
    repository: CostRepository, costs: CostModel, database: sa.Engine
) -> None:
    keeper = CostKeeper(repository, costs, device="cpu")
    keeper.save()
    first = written_at(database)
    costs.observe(FORWARD, 1, 10.01)
    costs.observe(FORWARD, 8, 100.0)
    keeper.save()
    second = written_at(database)
    forward, decode = "forward/1x4x16x16/77", "decode/1x4x16x16/0"
    assert second[decode] == first[decode]
    assert second[forward][0] == first[forward][0]
    assert second[forward][1] != first[forward][1]


def test_what_was_recalled_is_not_written_again(
    repository: CostRepository, costs: CostModel, database: sa.Engine
) -> None:
    CostKeeper(repository, costs, device="cpu").save()
    first = written_at(database)
    again = CostModel()
    keeper = CostKeeper(repository, again, device="cpu")
    again.load(keeper.recall("demo"))
    keeper.save()
    assert written_at(database) == first


def test_what_was_forgotten_is_written_anew(
    repository: CostRepository, costs: CostModel, database: sa.Engine
) -> None:
    keeper = CostKeeper(repository, costs, device="cpu")
    keeper.save()
    keeper.recall("demo")
    first = written_at(database)
    keeper.forget("demo")
    assert written_at(database) == first
    keeper.save()
    second = written_at(database)
    assert second.keys() == first.keys()
    assert not {at for cells in second.values() for at in cells} & {
        at for cells in first.values() for at in cells
    }


def test_what_no_measurement_gives_stays_away_and_keeps_nothing_else_away(
    repository: CostRepository, costs: CostModel
) -> None:
    costs.load([Cost(FORWARD, 2, math.inf, 5)])
    CostKeeper(repository, costs, device="cpu").save()
    found = repository.load(model="demo", device="cpu")
    assert sorted(cell.rows for cell in found) == [1, 1, 8]


def test_a_worker_starts_without_sql() -> None:
    keeper = CostKeeper(CostRepository(make_engine(AWAY)), CostModel(), device="cpu")
    assert keeper.recall("demo") == []
    keeper.forget("demo")


def test_a_worker_saves_what_it_learned_at_its_beats_and_when_it_stops(
    repository: CostRepository, costs: CostModel, database: sa.Engine
) -> None:
    workers = WorkerRepository(database)
    presence = Presence(
        beat=lambda: workers.beat("w", device="cpu", queues=["demo.batch"], slots=8),
        leave=lambda: workers.leave("w"),
        save_costs=CostKeeper(repository, costs, device="cpu").save,
    )
    presence.start()
    presence.stop()
    workload = Workload(Stage.FORWARD, (1, 4, 16, 16), 77)
    assert CostCell("demo", "cpu", workload, 8, 20.0, 5) in repository.load(
        model="demo", device="cpu"
    )
    assert repository.load_fleet().workers == {}
