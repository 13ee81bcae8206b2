from datetime import datetime, timedelta

import pytest

from tests.fixtures.api import Api


def ids(page: dict) -> list[str]:
    return [job["id"] for job in page["data"]]


def test_pages_follow_one_another_newest_first(api: Api) -> None:
    submitted = [api.submit()["id"] for _ in range(5)]
    path, seen = "/v1/jobs?limit=2", []
    for has_more in (True, True, False):
        answer = api.client.get(path)
        page = answer.json()
        assert page["has_more"] is has_more
        assert (page["next_cursor"] is not None) is has_more
        assert answer.headers["Cache-Control"] == "private, no-cache"
        seen += ids(page)
        if has_more:
            target, _, relation = answer.headers["Link"].partition("; ")
            assert relation == 'rel="next"'
            path = target.strip("<>")
            assert page["next_cursor"] in path.replace("%3D", "=")
    assert seen == submitted[::-1]
    assert "Link" not in answer.headers


def test_a_page_that_is_just_full_has_no_next(api: Api) -> None:
    api.submit()
    api.submit()
    page = api.client.get("/v1/jobs", params={"limit": 2}).json()
    assert (len(page["data"]), page["has_more"], page["next_cursor"]) == (2, False, None)


def test_jobs_submitted_meanwhile_do_not_shift_pages(api: Api) -> None:
    submitted = [api.submit()["id"] for _ in range(4)]
    first = api.client.get("/v1/jobs", params={"limit": 2}).json()
    api.submit()
    params = {"limit": 2, "cursor": first["next_cursor"]}
    second = api.client.get("/v1/jobs", params=params).json()
    assert ids(first) + ids(second) == submitted[::-1]


def test_filters_narrow_a_list_and_stay_in_its_link(api: Api) -> None:
    canceled = [api.submit(preset="fast")["id"] for _ in range(3)]
    for job_id in canceled:
        api.client.post(f"/v1/jobs/{job_id}/cancel")
    api.submit(preset="fast")
    api.submit()
    params = {"status": "canceled", "preset": "fast", "model": "demo", "limit": 2}
    answer = api.client.get("/v1/jobs", params=params)
    rest = api.client.get(answer.headers["Link"].partition(";")[0].strip("<>"))
    assert ids(answer.json()) + ids(rest.json()) == canceled[::-1]
    assert api.client.get("/v1/jobs", params={"model": "other"}).json()["data"] == []


def test_metadata_filters_hold_together(api: Api) -> None:
    api.submit(metadata={"run": "a"})
    wanted = api.submit(metadata={"run": "a", "who \N{SNOWMAN}": "b&c"})["id"]
    params = {"metadata.run": "a", "metadata.who \N{SNOWMAN}": "b&c"}
    assert ids(api.client.get("/v1/jobs", params=params).json()) == [wanted]


@pytest.mark.parametrize(("name", "found"), [("created_after", 1), ("created_before", 1)])
def test_times_bound_a_list_on_one_side(api: Api, name: str, found: int) -> None:
    first, last = api.submit(), api.submit()
    between = (
        datetime.fromisoformat(first["created_at"])
        + (datetime.fromisoformat(last["created_at"]) - datetime.fromisoformat(first["created_at"]))
        / 2
    )
    page = api.client.get("/v1/jobs", params={name: between.isoformat()}).json()
    assert ids(page) == [last["id"] if name == "created_after" else first["id"]]
    assert len(page["data"]) == found


def test_times_at_the_ends_of_the_calendar_find_nothing_and_break_nothing(api: Api) -> None:
    api.submit()
    for params in (
        {"created_before": "0001-01-01T00:00:00+14:00"},
        {"created_after": "9999-12-31T23:59:59-14:00"},
    ):
        assert api.client.get("/v1/jobs", params=params).json()["data"] == []


def test_a_queued_job_in_a_list_leaves_its_place_out(api: Api) -> None:
    api.submit()
    (job,) = api.client.get("/v1/jobs").json()["data"]
    assert job["queue"] == {"position": None, "eta_s": None, "unschedulable": None}
    assert datetime.fromisoformat(job["created_at"]).utcoffset() == timedelta(0)
