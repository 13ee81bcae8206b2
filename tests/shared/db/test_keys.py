import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from shared.db.keys import KeyRepository, _split, mint_key


def test_a_key_is_known_after_it_was_made_valid_and_stored_as_a_hash(database: sa.Engine) -> None:
    keys, key = KeyRepository(database), mint_key()
    assert keys.find(key) is None
    keys.ensure(key, tenant="acme", name="ci")
    keys.ensure(key, tenant="other", name="again")
    principal = keys.find(key)
    assert principal is not None
    assert (principal.tenant, principal.name) == ("acme", "ci")
    with database.connect() as connection:
        (row,) = connection.execute(sa.text("SELECT * FROM api_keys")).all()
    secret = key.split("_")[2]
    assert secret not in str(row)
    assert bytes.fromhex(secret) not in map(bytes, [row.secret_sha256])


def test_another_secret_under_a_known_id_is_refused(database: sa.Engine) -> None:
    keys, one, other = KeyRepository(database), mint_key(), mint_key()
    keys.ensure(one, tenant="acme", name="ci")
    forged = one.replace(one.split("_")[2], other.split("_")[2])
    assert keys.find(forged) is None


def test_a_revoked_key_is_refused(database: sa.Engine) -> None:
    keys, key = KeyRepository(database), mint_key()
    keys.ensure(key, tenant="acme", name="ci")
    with database.begin() as connection:
        connection.execute(sa.text("UPDATE api_keys SET revoked_at = now()"))
    assert keys.find(key) is None


@given(place=st.integers(0, 91), letter=st.sampled_from("abcdef0123456789_ \n"))
def test_a_mistyped_key_is_none(place: int, letter: str) -> None:
    key = mint_key()
    typed = key[:place] + letter + key[place + 1 :]
    assert typed == key or _split(typed) is None


@pytest.mark.parametrize(
    "text",
    ["", "lq_", "Bearer x", "lq_" + "a" * 89, mint_key() + "\n"],
    ids=["empty", "prefix", "scheme", "letters", "line"],
)
def test_what_is_no_key_is_refused(database: sa.Engine, text: str) -> None:
    with pytest.raises(ValueError, match="not an API key"):
        KeyRepository(database).ensure(text, tenant="acme", name="ci")
