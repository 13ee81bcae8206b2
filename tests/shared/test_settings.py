from pathlib import Path

import pytest

from shared.errors import ConfigurationError
from shared.settings import DatabaseSettings, WorkerSettings

URL = "postgresql://user:secret@host/db"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DATABASE_URL", "REDIS_URL", "LEASE_S"):
        monkeypatch.delenv(f"LATENTQ_{name}", raising=False)
        monkeypatch.delenv(f"LATENTQ_{name}_FILE", raising=False)


def test_a_missing_variable_is_named() -> None:
    with pytest.raises(ConfigurationError, match="set LATENTQ_DATABASE_URL"):
        DatabaseSettings.read()


def test_a_secret_may_lie_in_a_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "url").write_text(f"{URL}\n")
    monkeypatch.setenv("LATENTQ_DATABASE_URL_FILE", str(tmp_path / "url"))
    assert DatabaseSettings.read().database_url.get_secret_value() == URL


def test_the_variable_itself_wins_over_the_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "url").write_text("other")
    monkeypatch.setenv("LATENTQ_DATABASE_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("LATENTQ_DATABASE_URL", URL)
    assert DatabaseSettings.read().database_url.get_secret_value() == URL


def test_a_file_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LATENTQ_DATABASE_URL_FILE", str(tmp_path / "none"))
    with pytest.raises(ConfigurationError, match="none"):
        DatabaseSettings.read()


def test_a_wrong_value_is_named_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("DATABASE_URL", "REDIS_URL", "S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY")
    for name in names:
        monkeypatch.setenv(f"LATENTQ_{name}", "x")
    monkeypatch.setenv("LATENTQ_LEASE_S", "canary")
    with pytest.raises(ConfigurationError, match="LATENTQ_LEASE_S") as caught:
        WorkerSettings.read()
    assert "canary" not in caught.value.detail


def test_secrets_do_not_show_when_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LATENTQ_DATABASE_URL", URL)
    assert "secret" not in repr(DatabaseSettings.read())
