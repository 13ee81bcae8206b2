from hypothesis import given
from hypothesis import strategies as st

from shared.job import MAX_LOST_LEASES, TRANSITIONS, JobStatus, status_after_lost_lease


def test_terminal_states_are_the_ones_that_lead_nowhere() -> None:
    terminal = {status for status in JobStatus if status.is_terminal}
    assert terminal == {JobStatus.SUCCEEDED, JobStatus.FAILED, JobStatus.CANCELED}


@given(st.integers(1, 50), st.booleans())
def test_a_lost_lease_leads_where_a_running_job_may_go(lost: int, cancel: bool) -> None:
    status = status_after_lost_lease(lost_leases=lost, cancel_requested=cancel)
    assert status in TRANSITIONS[JobStatus.RUNNING]
    assert (status is JobStatus.CANCELED) == cancel
    assert (status is JobStatus.QUEUED) == (lost < MAX_LOST_LEASES and not cancel)
