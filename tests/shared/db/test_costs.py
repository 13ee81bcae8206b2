from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import sqlalchemy as sa

from models import CATALOG
from shared.catalog import Catalog
from shared.db.costs import MAX_CELLS, CostRepository
from shared.db.presence import WorkerRepository
from shared.estimate import CostCell, Stage, Workload
from tests.shared.test_estimate import request

#: Of 64x64 pixels.
SHAPE = Workload(Stage.FORWARD, (1, 4, 16, 16), 77)


@pytest.fixture
def costs(database: sa.Engine) -> CostRepository:
    return CostRepository(database)


def cell(rows: int, ms: float = 10.0, **changes: object) -> CostCell:
    return replace(CostCell("demo", "cpu", SHAPE, rows, ms, 5), **changes)


def test_what_was_saved_is_loaded_by_model_and_device(costs: CostRepository) -> None:
    saved = [cell(1), cell(2, workload=SHAPE._replace(stage=Stage.DECODE), samples=2**40)]
    others = [cell(1, model="other"), cell(1, device="cuda")]
    costs.save(saved + others)
    assert set(costs.load(model="demo", device="cpu")) == set(saved)
    costs.save([])
    costs.save([cell(1, 20.0, samples=6)])
    assert set(costs.load(model="demo", device="cpu")) == {cell(1, 20.0, samples=6), saved[1]}


def test_what_is_forgotten_takes_nothing_else_along(costs: CostRepository) -> None:
    costs.save([cell(1), cell(2), cell(1, model="other"), cell(1, device="cuda")])
    costs.forget(model="demo", device="cpu")
    assert costs.load(model="demo", device="cpu") == []
    assert costs.load(model="other", device="cpu")
    assert costs.load(model="demo", device="cuda")


def test_workers_that_save_the_same_cells_at_once_do_not_wait_for_each_other(
    costs: CostRepository,
) -> None:
    table = [cell(rows) for rows in range(1, 65)]

    def save(number: int) -> None:
        for _ in range(5):
            # In opposite orders, which would deadlock if they were stored so.
            costs.save([replace(c, ms=float(number)) for c in table[:: 1 if number % 2 else -1]])

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(save, range(1, 5)))
    found = costs.load(model="demo", device="cpu")
    assert sorted(c.rows for c in found) == list(range(1, 65))
    assert len({c.ms for c in found}) == 1  # of one statement, not a mixture


def insert(database: sa.Engine, workload: str, rows: int, ms: str, samples: int = 1) -> None:
    statement = sa.text(
        "INSERT INTO costs (model, device, workload, rows, ms, samples)"
        " VALUES ('demo', 'cpu', :workload, :rows, CAST(:ms AS double precision), :samples)"
    )
    with database.begin() as connection:
        connection.execute(
            statement, {"workload": workload, "rows": rows, "ms": ms, "samples": samples}
        )


@pytest.mark.parametrize(
    ("rows", "ms", "samples"),
    [(0, "1", 1), (1, "0", 1), (1, "-1", 1), (1, "NaN", 1), (1, "Infinity", 1), (1, "1", 0)],
)
def test_the_database_refuses_what_no_measurement_gives(
    database: sa.Engine, rows: int, ms: str, samples: int
) -> None:
    with pytest.raises(sa.exc.IntegrityError, match="ck_costs_measured"):
        insert(database, str(SHAPE), rows, ms, samples)


def test_an_absurd_row_is_left_out_and_the_others_are_read(
    costs: CostRepository, database: sa.Engine
) -> None:
    costs.save([cell(1)])
    insert(database, "nonsense", 1, "1")
    insert(database, str(SHAPE), 2, "1e12")
    insert(database, "forward/1x4x0x8/77", 1, "1")
    assert costs.load(model="demo", device="cpu") == [cell(1)]


def test_of_very_many_cells_the_best_known_are_read(costs: CostRepository) -> None:
    many = [
        cell(rows, samples=side, workload=SHAPE._replace(latent_shape=(1, 4, side, 8)))
        for side in range(1, 100)
        for rows in range(1, 11)
    ]
    costs.save(many)
    found = costs.load(model="demo", device="cpu")
    assert len(found) == MAX_CELLS
    assert min(c.samples for c in found) == 50


def test_the_fleet_is_the_workers_that_live_and_what_is_known_of_their_devices(
    costs: CostRepository, database: sa.Engine
) -> None:
    workers = WorkerRepository(database)
    for name, device in (("a", "cpu"), ("b", "cpu"), ("c", "cuda"), ("dead", "mps")):
        workers.beat(name, device=device, queues=["demo.interactive", "demo.batch"], slots=8)
    with database.begin() as connection:
        connection.execute(
            sa.text("UPDATE workers SET heartbeat_at = now() - interval '1 hour' WHERE id = 'dead'")
        )
    costs.save([cell(1, 10.0), cell(1, 1.0, device="mps"), cell(1, 1.0, model="other")])
    fleet = costs.load_fleet()
    assert fleet.workers["demo.batch"] == {"cpu": 2, "cuda": 1}
    assert set(fleet.costs) == {("demo", "cpu"), ("other", "cpu")}
    spec = Catalog.load(CATALOG).models["demo"]
    assert fleet.predict_s("demo.batch", request(steps=10), spec) == pytest.approx(0.1)


def test_there_is_no_fleet_without_workers(costs: CostRepository) -> None:
    costs.save([cell(1)])
    fleet = costs.load_fleet()
    assert (fleet.workers, fleet.costs) == ({}, {})
