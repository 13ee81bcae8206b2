from collections.abc import Callable

import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from shared.db.dispatch import DispatchRepository
from shared.db.jobs import JobRepository
from shared.db.presence import Surroundings, WorkerRepository
from shared.holding import HoldingState, Stock
from shared.job import NewJob
from worker.affinity import LEAVE_FOR_S, OVERTAKE_AFTER_S, Affinity

MODELS = ("a", "b", "c")
CLASSES = [[f"{model}.{name}" for model in MODELS] for name in ("interactive", "batch")]
QUEUES = [*CLASSES[0], *CLASSES[1]]


def states_of(model: str, state: HoldingState) -> dict[str, HoldingState]:
    return {queue: state for queue in QUEUES if queue[0] == model}


def affinity(*warm: str) -> Affinity:
    states = {queue: HoldingState.WARM for queue in QUEUES if queue[0] in warm}
    return Affinity(CLASSES, lambda: states)


def test_warm_models_go_first_urgent_jobs_before_all_others() -> None:
    assert affinity("b", "c").arrange(QUEUES) == [
        "b.interactive", "c.interactive", "b.batch", "c.batch", "a.interactive", "a.batch",
    ]  # fmt: skip


def test_one_that_waited_too_long_overtakes_its_class_with_one_job() -> None:
    order = affinity("b")
    late = {"a.interactive": OVERTAKE_AFTER_S + 1, "c.batch": OVERTAKE_AFTER_S + 2}
    order.learn(Surroundings(waited_s=late, warm_elsewhere=frozenset(QUEUES)))
    assert order.arrange(QUEUES) == ["a.interactive", "b.interactive", "c.batch", "b.batch"]
    order.note_taken("a.interactive")
    assert order.arrange(QUEUES) == ["b.interactive", "c.batch", "b.batch"]


def test_a_cold_model_is_left_to_those_that_hold_it_warm_for_a_moment() -> None:
    order = affinity("a")
    warm = frozenset({"b.interactive"})
    order.learn(Surroundings(waited_s={"b.interactive": LEAVE_FOR_S}, warm_elsewhere=warm))
    assert "b.interactive" not in order.arrange(QUEUES)
    assert "c.interactive" in order.arrange(QUEUES)
    order.learn(Surroundings(waited_s={"b.interactive": LEAVE_FOR_S + 1}, warm_elsewhere=warm))
    assert "b.interactive" in order.arrange(QUEUES)


def test_a_model_is_warm_once_it_is_loaded() -> None:
    states = states_of("a", HoldingState.WARM)
    order = Affinity(CLASSES, lambda: states)
    assert order.arrange(QUEUES)[:2] == ["a.interactive", "a.batch"]
    states |= states_of("c", HoldingState.WARMING)
    assert order.arrange(QUEUES)[:4] == ["a.interactive", "c.interactive", "a.batch", "c.batch"]


def test_a_model_on_its_way_needs_one_job_and_no_more() -> None:
    states = states_of("a", HoldingState.WARM)
    order = Affinity(CLASSES, lambda: states)
    order.note_taken("c.batch")
    assert order.arrange(QUEUES) == ["a.interactive", "a.batch", "b.interactive", "b.batch"]
    late = Surroundings({"c.interactive": OVERTAKE_AFTER_S + 1}, frozenset())
    for state in (HoldingState.WAITING, HoldingState.LOADING):
        states |= states_of("c", state)
        order.learn(late)
        assert order.arrange(QUEUES) == ["a.interactive", "a.batch", "b.interactive", "b.batch"]
    assert order.arrange(["c.interactive"]) == ["c.interactive"]
    states |= states_of("c", HoldingState.WARM)
    assert order.arrange(QUEUES)[0] == "c.interactive"
    order.note_taken("c.interactive")
    assert order.arrange(QUEUES)[:2] == ["a.interactive", "c.interactive"]


def test_a_message_that_came_to_nothing_is_forgotten_at_the_next_look_around() -> None:
    order = affinity("a")
    order.note_taken("c.batch")
    assert "c.interactive" not in order.arrange(QUEUES)
    order.learn(Surroundings({}, frozenset()))
    assert "c.interactive" in order.arrange(QUEUES)


def test_a_model_that_fails_here_is_left_to_those_that_hold_it_warm_however_late() -> None:
    states = states_of("a", HoldingState.WARM) | states_of("b", HoldingState.FAILED)
    order = Affinity(CLASSES, lambda: states)
    order.learn(Surroundings({"b.batch": LEAVE_FOR_S + 1}, frozenset({"b.batch"})))
    assert "b.batch" not in order.arrange(QUEUES)
    order.learn(Surroundings({"b.batch": LEAVE_FOR_S + 1}, frozenset()))
    assert "b.batch" in order.arrange(QUEUES)


@given(
    st.sets(st.sampled_from(MODELS)),
    st.dictionaries(st.sampled_from(QUEUES), st.floats(0, 100)),
    st.frozensets(st.sampled_from(QUEUES)),
    st.sets(st.sampled_from(QUEUES), min_size=1),
)
def test_no_queue_is_doubled_invented_or_left_out_for_ever(
    warm: set[str], waited_s: dict[str, float], elsewhere: frozenset[str], known: set[str]
) -> None:
    order = affinity(*warm)
    order.learn(Surroundings(waited_s, elsewhere))
    arranged = order.arrange(known)
    assert arranged
    assert len(arranged) == len(set(arranged))
    assert set(arranged) <= known
    for queue in known - set(arranged):
        assert queue[0] not in warm
        assert queue in elsewhere
        assert waited_s.get(queue, 0) <= LEAVE_FOR_S


def test_a_worker_sees_what_waits_and_what_others_hold_warm(
    database: sa.Engine, make_job: Callable[..., NewJob]
) -> None:
    jobs, workers = JobRepository(database), WorkerRepository(database)
    for queue in ("a.batch", "b.batch"):
        jobs.insert(make_job(queue=queue))
    DispatchRepository(database).pick("b.batch")
    with database.begin() as connection:
        changes = "SET dispatched_at = dispatched_at - interval '40 s'"
        connection.execute(sa.text(f"UPDATE jobs {changes}"))
    for worker, models in (("me", "a"), ("other", "b"), ("dead", "c")):
        warm = [queue for queue in QUEUES if queue[0] in models]
        workers.beat(worker, device="cpu", queues=QUEUES, slots=1, stock=Stock(tuple(warm)))
    with database.begin() as connection:
        silent = "SET heartbeat_at = now() - interval '61 s' WHERE id = 'dead'"
        connection.execute(sa.text(f"UPDATE workers {silent}"))
    seen = workers.look_around("me")
    assert seen.warm_elsewhere == {"b.interactive", "b.batch"}
    assert seen.waited_s.keys() == {"b.batch"}
    assert 40 <= seen.waited_s["b.batch"] < 100
    order = affinity("a")
    order.learn(seen)
    assert order.arrange(QUEUES)[:2] == ["a.interactive", "b.batch"]
