import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.prefer import MAX_WAIT_S, Preferences, parse_preferences

OTHERS = [
    "return=minimal",
    'x="a, wait=1; b"',
    'x="\\", wait=1"',
    "handling=lenient; wait=2",
    'x; y="respond-async, wait=3"',
    "waits=4",
    "",
    "  ",
    ";",
    "=",
]


@pytest.mark.parametrize(
    ("header", "wait_s", "is_async"),
    [
        ("wait=30", 30, False),
        ("WAIT = 30", 30, False),
        ('wait="30"', 30, False),
        ("wait=30; why=x", 30, False),
        ("Respond-Async, wait=5", 5, True),
        ("respond-async", None, True),
        ("wait=0", 0, False),
        ("wait=0005", 5, False),
        ("wait=61", MAX_WAIT_S, False),
        ("wait=" + "9" * 5000, MAX_WAIT_S, False),
        ("wait", MAX_WAIT_S, False),
        ("wait=1, wait=2", 1, False),
        ("wait=-1", None, False),
        ("wait=1.5", None, False),
        ("wait=1e3", None, False),
        ("wait=\u0663", None, False),
        ("wait=soon, respond-async", None, True),
        ('x="never closed, wait=3', None, False),
    ],
)
def test_preferences_are_read_as_rfc_7240_writes_them(
    header: str, wait_s: int | None, is_async: bool
) -> None:
    assert parse_preferences([header]) == Preferences(wait_s, is_async)


@given(
    wait_s=st.integers(0, 10**12),
    before=st.lists(st.sampled_from(OTHERS)),
    after=st.lists(st.sampled_from(OTHERS)),
    is_async=st.booleans(),
    is_split=st.booleans(),
    space=st.sampled_from(["", " ", "\t "]),
)
def test_what_stands_around_a_preference_changes_nothing(
    wait_s: int, before: list[str], after: list[str], is_async: bool, is_split: bool, space: str
) -> None:
    ours = [f"{space}wait{space}={space}{wait_s}{space}"] + ["respond-async"] * is_async
    parts = [*before, *ours, *after]
    headers = parts if is_split else [",".join(parts)]
    assert parse_preferences(headers) == Preferences(min(wait_s, MAX_WAIT_S), is_async)


@given(st.lists(st.text(st.sampled_from(string.printable + "\u00e9\u0663"))))
def test_no_header_is_an_error(headers: list[str]) -> None:
    wait_s = parse_preferences(headers).wait_s
    assert wait_s is None or 0 <= wait_s <= MAX_WAIT_S


@pytest.mark.timeout(5)
@pytest.mark.parametrize("part", ['"', "\\", ";", ", ", "=", ' ;"', '"\\', " "])
def test_no_header_takes_long(part: str) -> None:
    parse_preferences([part * 60_000])


def test_the_answer_says_what_was_applied() -> None:
    assert Preferences().applied() is None
    assert Preferences(5, True).applied() == "wait=5"
    assert Preferences(5, True).applied(is_async=True) == "respond-async, wait=5"
    assert Preferences(None, True).applied() is None
