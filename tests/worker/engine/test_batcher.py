import itertools
from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fixtures.rides import BATCHED, FLAT, Ride, device, drive, knowing
from worker.engine.batcher import QUANTUM_MS, Batcher
from worker.engine.cost import CostModel
from worker.engine.headroom import Headroom
from worker.engine.lane import AGEING_RATE

EXACT_ROWS = 4
#: Some curves are known, one is not.
TABLES = {"a": BATCHED, "b": FLAT}

any_rides = st.lists(
    st.builds(
        Ride,
        key=st.sampled_from("abc"),
        num_rows=st.integers(1, 2),
        exact_rows=st.sampled_from([None, EXACT_ROWS]),
        priority=st.integers(0, 9),
        steps=st.integers(1, 6),
        tenant=st.sampled_from("xyz"),
        arrives_at=st.floats(0, 0.3),
    ),
    max_size=20,
)


@given(any_rides)
def test_every_entry_gets_all_its_steps_once_each(rides: list[Ride]) -> None:
    costs = knowing(TABLES)
    batcher: Batcher[Ride] = Batcher(costs, Headroom())
    num_steps = 0
    for step in drive(batcher, rides, device(costs)):
        num_steps += 1
        assert len({ride.key for ride in step.batch}) == 1
        assert len({id(ride) for ride in step.batch}) == len(step.batch)
        assert all(ride.taken <= ride.steps for ride in step.batch)
    assert len(batcher) == 0
    assert batcher.next_batch(now=9.0) is None
    assert all(ride.taken == ride.steps for ride in rides)
    assert num_steps <= sum(ride.steps for ride in rides)


@given(any_rides)
def test_the_cap_holds_and_exact_rows_are_always_as_many(rides: list[Ride]) -> None:
    costs = knowing(TABLES)
    for step in drive(Batcher(costs, Headroom()), rides, device(costs)):
        entries = step.batch.entries
        key = entries[0].key
        cap = 16
        if key in TABLES:
            cap = costs.row_cap(key, job_rows=2, max_rows=16)
        if any(entry.exact_rows for entry in entries):
            cap = max(cap, EXACT_ROWS)
        assert sum(entry.num_rows for entry in entries) <= cap or len(entries) == 1
        for forward in step.batch.forwards():
            if any(entries[row.entry].exact_rows for row in forward.rows):
                assert forward.size == EXACT_ROWS


@given(any_rides)
def test_the_most_urgent_are_in_every_batch(rides: list[Ride]) -> None:
    costs = knowing(TABLES)
    present = rides.copy()
    for step in drive(Batcher(costs, Headroom()), rides, device(costs)):
        inside = step.batch.entries
        arrived = [ride for ride in present if ride.arrives_at <= step.started_at]
        assert max(ride.priority for ride in inside) == max(ride.priority for ride in arrived)
        outside = [ride for ride in arrived if ride not in inside and ride.key == inside[0].key]
        # Who is left out for somebody less urgent has more rows than there was room for.
        for other in outside:
            assert all(
                ride.priority >= other.priority or ride.num_rows < other.num_rows for ride in inside
            )
        present = [ride for ride in present if not ride.is_ended]


@given(
    st.lists(
        st.builds(
            Ride,
            key=st.just("a"),
            num_rows=st.integers(1, 2),
            steps=st.integers(1, 40),
            arrives_at=st.floats(0, 8),
        ),
        min_size=2,
        max_size=20,
    ),
    st.sampled_from([BATCHED, FLAT]),
)
def test_nobody_is_overtaken_by_who_comes_later_than_ageing_allows(
    rides: list[Ride], table: dict[int, float]
) -> None:
    costs = knowing({"a": table})
    waited: Counter[int] = Counter()
    for step in drive(Batcher(costs, Headroom()), rides, device(costs)):
        for number, ride in enumerate(rides):
            if ride.arrives_at <= step.started_at and ride.taken < ride.steps:
                waited[number] += ride not in step.batch.entries
    for number, ride in enumerate(rides):
        window_s = ride.steps * table[ride.num_rows] / 1000 / AGEING_RATE
        # Arrivals count from the step boundary at which they are seen.
        window_s += max(table.values()) / 1000
        ahead = [
            other
            for other in rides
            if other is not ride and other.arrives_at <= ride.arrives_at + window_s
        ]
        assert waited[number] <= sum(other.steps for other in ahead)


def test_without_a_gain_one_job_runs_and_shorter_ones_overtake() -> None:
    costs = knowing({"a": FLAT})
    long = Ride(steps=50)
    short = Ride(steps=5, arrives_at=0.1)
    longer = Ride(steps=60, arrives_at=0.1)
    order = [
        step.batch.entries
        for step in drive(Batcher(costs, Headroom()), [long, short, longer], device(costs))
    ]
    assert all(len(entries) == 1 for entries in order)
    names = {long: "long", short: "short", longer: "longer"}
    runs = [(names[ride], len(list(run))) for (ride,), run in itertools.groupby(order)]
    assert runs == [("long", 5), ("short", 5), ("long", 45), ("longer", 60)]


def test_a_stream_of_short_jobs_does_not_stop_a_long_one() -> None:
    costs = knowing({"a": FLAT})
    long = Ride(steps=50)  # one second
    stream = [Ride(steps=5, arrives_at=0.1 * n) for n in range(200)]  # all of the device
    steps = drive(Batcher(costs, Headroom()), [long, *stream], device(costs))
    ended_at = next(step.ended_at for step in steps if long.is_ended)
    assert ended_at <= 1.0 + 1.0 / AGEING_RATE + 0.1


@settings(max_examples=30)
@given(
    st.lists(st.builds(Ride, steps=st.integers(1, 20), tenant=st.just("many")), min_size=25),
    st.lists(
        st.builds(Ride, steps=st.integers(1, 20), tenant=st.just("few"), arrives_at=st.just(0.1)),
        min_size=5,
        max_size=10,
    ),
    st.sampled_from([BATCHED, FLAT]),
)
def test_tenants_that_wait_get_equal_shares_however_much_they_ask_for(
    many: list[Ride], few: list[Ride], table: dict[int, float]
) -> None:
    costs = knowing({"a": table})
    # Two jobs of twenty steps each, and one step more.
    bound_ms = 2 * 20 * table[2] + table[16]
    had_ms = {"many": 0.0, "few": 0.0}
    for step in drive(Batcher(costs, Headroom()), many + few, device(costs)):
        if step.started_at >= 0.1:
            num_rows = sum(ride.num_rows for ride in step.batch)
            for ride in step.batch:
                had_ms[ride.tenant] += (
                    1000 * (step.ended_at - step.started_at) * ride.num_rows / num_rows
                )
        if all(ride.is_ended for ride in few) or all(ride.is_ended for ride in many):
            break
        assert had_ms["many"] - had_ms["few"] <= bound_ms


@given(
    st.dictionaries(st.sampled_from("abcd"), st.floats(1, 500), min_size=2),
    st.integers(1, 30),
)
def test_keys_have_equal_shares_of_the_device(cost_ms: dict[str, float], rounds: int) -> None:
    batcher: Batcher[Ride] = Batcher(CostModel(), Headroom())
    for key in cost_ms:
        batcher.add(Ride(key=key, steps=10**9), tenant="x", now=0.0)
    now = 0.0
    had_ms = dict.fromkeys(cost_ms, 0.0)
    for _ in range(rounds):
        batch = batcher.next_batch(now=now)
        assert batch is not None
        (key,) = {ride.key for ride in batch}
        now += cost_ms[key] / 1000
        had_ms[key] += cost_ms[key]
        batcher.retire(batch, now=now)
        bound_ms = 2 * (max(cost_ms.values()) + QUANTUM_MS)
        assert max(had_ms.values()) - min(had_ms.values()) <= bound_ms


def test_more_keys_are_no_more_of_the_device() -> None:
    batcher: Batcher[Ride] = Batcher(CostModel(), Headroom())
    for key in "abcd":
        batcher.add(Ride(key=key, steps=10**9), tenant="many", now=0.0)
    batcher.add(Ride(key="e", steps=10**9), tenant="one", now=0.0)
    turns: Counter[str] = Counter()
    for n in range(400):
        batch = batcher.next_batch(now=n / 100)
        assert batch is not None
        turns[batch.entries[0].key] += 1
        batcher.retire(batch, now=(n + 1) / 100)
    assert 190 <= turns["e"] <= 210
    assert all(45 <= turns[key] <= 55 for key in "abcd")


def test_who_is_discarded_is_gone_and_the_others_go_on() -> None:
    batcher: Batcher[Ride] = Batcher(CostModel(), Headroom())
    rides = [Ride(key=key) for key in "abab"]
    for ride in rides:
        batcher.add(ride, tenant="x", now=0.0)
    assert batcher.discard(lambda ride: ride.key == "a") == [rides[0], rides[2]]
    assert len(batcher) == 2
    batch = batcher.next_batch(now=0.0)
    assert batch is not None
    assert batch.entries == (rides[1], rides[3])
