import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.webhook import MAX_URL_CHARACTERS, find_url_refusal, host_of

WRONG = {
    "no scheme": "example.com/hook",
    "plain": "http://example.com/hook",
    "another scheme": "ftp://example.com/hook",
    "a file": "file:///etc/passwd",
    "user and password": "https://user:secret@example.com/",
    "a user": "https://user@example.com/",
    "another port": "https://example.com:6379/",
    "a port that is none": "https://example.com:99999/",
    "no host": "https:///hook",
    "space": "https://example.com/a b",
    "line break": "https://example.com/\r\nX: y",
    "backslash": "https://example.com\\@127.0.0.1/",
    "letters of elsewhere": "https://exämple.com/",
    "fragment": "https://example.com/#part",
    "localhost": "https://localhost/hook",
    "loopback": "https://127.0.0.1/hook",
    "loopback of IPv6": "https://[::1]/hook",
    "mapped loopback": "https://[::ffff:127.0.0.1]/hook",
    "private": "https://10.0.0.1/hook",
    "metadata of a cloud": "https://169.254.169.254/latest",
    "too long": f"https://example.com/{'a' * MAX_URL_CHARACTERS}",
}


@pytest.mark.parametrize("url", WRONG.values(), ids=WRONG.keys())
def test_messages_go_to_public_hosts_by_https_only(url: str) -> None:
    assert find_url_refusal(url, allow_loopback=False) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://hooks.example.com:8443/a/b?token=x%20y",
        "https://xn--exmple-cua.com/",
        "https://93.184.216.34/hook",
        "https://[2606:2800:220:1:248:1893:25c8:1946]/hook",
    ],
)
def test_a_public_receiver_is_fine(url: str) -> None:
    assert find_url_refusal(url, allow_loopback=False) is None


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:5000/hook", "http://localhost/", "https://[::1]:5000/"]
)
def test_this_machine_is_a_receiver_only_where_it_is_allowed(url: str) -> None:
    assert find_url_refusal(url, allow_loopback=True) is None
    assert find_url_refusal(url, allow_loopback=False) is not None


@pytest.mark.parametrize("url", ["http://example.com/", "https://10.0.0.1/", "ftp://localhost/"])
def test_nothing_else_is_allowed_with_it(url: str) -> None:
    assert find_url_refusal(url, allow_loopback=True) is not None


@given(url=st.text() | st.text().map("https://{}".format), allow=st.booleans())
def test_what_is_not_refused_has_a_host(url: str, allow: bool) -> None:
    if find_url_refusal(url, allow_loopback=allow) is None:
        assert host_of(url)


def test_hosts_are_told_apart_by_name_and_port() -> None:
    assert host_of("https://Example.com/a") == host_of("https://example.com:443/b")
    assert host_of("https://example.com:8443/") != host_of("https://example.com/")
