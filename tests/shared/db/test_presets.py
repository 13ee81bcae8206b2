from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from shared.db import presets as module
from shared.db.presets import PresetRepository
from shared.errors import Conflict, NotFound


@pytest.fixture
def presets(database: sa.Engine) -> PresetRepository:
    return PresetRepository(database)


def put(presets: PresetRepository, steps: int, *, name: str = "mine", tenant: str = "a") -> int:
    stored, _ = presets.put(tenant, name, description="", request={"steps": steps})
    return stored.version


def test_versions_are_counted_and_never_change(presets: PresetRepository) -> None:
    assert [put(presets, steps) for steps in (5, 6, 7)] == [1, 2, 3]
    for version, steps in ((1, 5), (2, 6), (3, 7), (None, 7)):
        found = presets.find("a", "mine", version)
        assert found is not None
        assert found.request == {"steps": steps}
    assert [one.version for one in presets.versions("a", "mine")] == [3, 2, 1]
    assert presets.find("a", "mine", 4) is None


def test_what_the_newest_version_says_already_makes_no_other(presets: PresetRepository) -> None:
    assert [put(presets, steps) for steps in (5, 5, 6, 5)] == [1, 1, 2, 3]
    first, is_new = presets.put("a", "mine", description="other words", request={"steps": 5})
    assert (first.version, is_new) == (4, True)


def test_versions_made_at_once_are_all_kept(presets: PresetRepository) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda steps: put(presets, steps), range(1, 9)))
    assert sorted(versions) == list(range(1, 9))
    steps = {one.version: one.request["steps"] for one in presets.versions("a", "mine")}
    assert steps == {version: n for n, version in enumerate(versions, 1)}


def test_equal_versions_made_at_once_are_one(presets: PresetRepository) -> None:
    with ThreadPoolExecutor(8) as pool:
        versions = list(pool.map(lambda _: put(presets, 5), range(8)))
    assert set(versions) == {1}


def test_a_deleted_preset_is_hidden_and_its_numbers_are_not_used_again(
    presets: PresetRepository,
) -> None:
    put(presets, 5)
    put(presets, 6)
    presets.delete("a", "mine")
    assert presets.newest("a") == []
    for look in (presets.versions, presets.delete):
        with pytest.raises(NotFound):
            look("a", "mine")
    hidden = presets.find("a", "mine", 1)
    assert hidden is not None
    assert hidden.deleted_at is not None
    assert put(presets, 6) == 3
    assert [one.version for one in presets.versions("a", "mine")] == [3]
    old, new = presets.find("a", "mine", 2), presets.find("a", "mine")
    assert old is not None
    assert new is not None
    assert (old.deleted_at is None, new.deleted_at is None) == (False, True)


def test_tenants_have_their_own(presets: PresetRepository) -> None:
    put(presets, 5)
    put(presets, 6)
    assert put(presets, 7, tenant="b") == 1
    put(presets, 8, tenant="b", name="other")
    assert presets.find("a", "other") is None
    assert [(one.name, one.version) for one in presets.newest("b")] == [("mine", 1), ("other", 1)]
    presets.delete("b", "mine")
    assert [(one.name, one.version) for one in presets.newest("a")] == [("mine", 2)]


def test_there_is_a_limit_of_presets_and_of_versions(
    presets: PresetRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_PRESETS", 2)
    monkeypatch.setattr(module, "MAX_VERSIONS", 3)
    put(presets, 1, name="one")
    put(presets, 1, name="two")
    with pytest.raises(Conflict, match="delete one first"):
        put(presets, 1, name="three")
    put(presets, 1, name="three", tenant="b")
    presets.delete("a", "two")
    assert put(presets, 1, name="three") == 1
    with pytest.raises(Conflict, match="delete one first"):
        put(presets, 1, name="two")
    assert [put(presets, steps, name="one") for steps in (2, 3)] == [2, 3]
    with pytest.raises(Conflict, match="3 versions; take another"):
        put(presets, 4, name="one")
