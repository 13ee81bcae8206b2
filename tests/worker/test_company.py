import threading
from concurrent.futures import ThreadPoolExecutor

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.company import Company


@settings(deadline=None, max_examples=30)
@given(st.lists(st.booleans(), min_size=1, max_size=12))
def test_one_alone_has_nobody_beside_it_and_all_have_their_turn(alone: list[bool]) -> None:
    company = Company()
    running: set[int] = set()
    seen: dict[int, set[int]] = {}

    def run(number: int) -> None:
        with company.alone() if alone[number] else company.together():
            running.add(number)
            seen[number] = set(running)
            running.discard(number)

    with ThreadPoolExecutor(len(alone)) as pool:
        list(pool.map(run, range(len(alone))))
    assert len(seen) == len(alone)
    assert all(others == {number} for number, others in seen.items() if alone[number])


def test_others_run_side_by_side() -> None:
    company = Company()
    meeting = threading.Barrier(3, timeout=10)

    def run(_: int) -> None:
        with company.together():
            meeting.wait()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))


def test_who_comes_after_one_that_wants_to_be_alone_waits_for_it() -> None:
    company = Company()
    order: list[str] = []
    wants = threading.Event()

    def run_alone() -> None:
        wants.set()
        with company.alone():
            order.append("alone")

    def run_late() -> None:
        with company.together():
            order.append("late")

    with company.together():
        alone = threading.Thread(target=run_alone)
        alone.start()
        wants.wait(10)
        # It wants to be alone once it waits; until then it has the lock's attention only.
        while not company._num_wanting_alone:
            pass
        late = threading.Thread(target=run_late)
        late.start()
        order.append("first")
    for thread in (alone, late):
        thread.join(10)
    assert order == ["first", "alone", "late"]
