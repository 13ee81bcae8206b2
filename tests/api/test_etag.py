from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from api.etag import QUEUE_PERIOD_S, is_known, make_etag
from shared.job import JobStamp, JobStatus

STAMPS = st.builds(JobStamp, st.sampled_from(JobStatus), st.integers(0, 9), st.integers(0, 100_000))
TIMES = st.integers(1_600_000_000, 4_000_000_000).map(lambda s: datetime.fromtimestamp(s, UTC))
TTLS = st.integers(60, 604_800)


@given(STAMPS, STAMPS, TIMES, TTLS)
def test_two_moments_have_one_tag_only_if_they_are_one(
    one: JobStamp, other: JobStamp, now: datetime, ttl_s: int
) -> None:
    tags = {make_etag(stamp, now=now, link_ttl_s=ttl_s) for stamp in (one, other)}
    assert (len(tags) == 1) == (one == other)


@given(STAMPS, TIMES, TTLS, st.floats(0, 1))
def test_a_tag_is_gone_before_the_links_are(
    stamp: JobStamp, now: datetime, ttl_s: int, share: float
) -> None:
    first = make_etag(stamp, now=now, link_ttl_s=ttl_s)
    seconds = {JobStatus.SUCCEEDED: ttl_s / 2, JobStatus.QUEUED: QUEUE_PERIOD_S}.get(stamp.status)
    if seconds is None:
        later = now + timedelta(days=365 * share)
        assert make_etag(stamp, now=later, link_ttl_s=ttl_s) == first
    else:
        changes = [
            make_etag(stamp, now=now + timedelta(seconds=s), link_ttl_s=ttl_s) != first
            for s in (0, seconds + 0.001)
        ]
        assert changes == [False, True]


@given(st.lists(STAMPS, min_size=1), st.booleans(), TIMES)
def test_a_tag_is_found_among_others_weak_or_strong(
    stamps: list[JobStamp], is_strong: bool, now: datetime
) -> None:
    tags = [make_etag(stamp, now=now, link_ttl_s=900) for stamp in stamps]
    given_tags = [tag.removeprefix("W/") if is_strong else tag for tag in tags]
    assert all(is_known(tag, [", ".join(given_tags)]) for tag in tags)
    assert all(is_known(tag, given_tags) for tag in tags)


def test_what_is_no_tag_is_not_known() -> None:
    tag = make_etag(JobStamp(JobStatus.RUNNING, 1, 2), now=datetime.now(UTC), link_ttl_s=900)
    assert is_known(tag, ["*"])
    for text in ("", "1-2-running", 'W/"1-2"', '"1-2-running', "**", '""'):
        assert not is_known(tag, [text])
