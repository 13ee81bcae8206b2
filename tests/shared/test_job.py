from hypothesis import given
from hypothesis import strategies as st

from shared.job import (
    MAX_LOST_ALONE,
    MAX_LOST_LEASES,
    TRANSITIONS,
    JobStatus,
    status_after_lost_lease,
)


def test_terminal_states_are_the_ones_that_lead_nowhere() -> None:
    terminal = {status for status in JobStatus if status.is_terminal}
    assert terminal == {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED}


@given(st.integers(1, 50), st.integers(0, 50), st.booleans())
def test_a_lost_lease_leads_where_a_running_job_may_go(lost: int, alone: int, cancel: bool) -> None:
    status = status_after_lost_lease(lost_leases=lost, lost_alone=alone, cancel_requested=cancel)
    assert status in TRANSITIONS[JobStatus.RUNNING]
    assert (status is JobStatus.CANCELED) == cancel
    may_go_on = lost < MAX_LOST_LEASES and alone < MAX_LOST_ALONE
    assert (status is JobStatus.QUEUED) == (may_go_on and not cancel)
