import sqlalchemy as sa

from dispatcher.presence import INTERVAL_S, Presence
from shared.db.presence import DispatcherRepository


def age(database: sa.Engine) -> float:
    """Age the heartbeat by a minute, and return how old it was."""
    query = "SELECT extract(epoch FROM now() - heartbeat_at) FROM dispatchers"
    with database.begin() as connection:
        old = float(connection.execute(sa.text(query)).scalar_one())
        connection.execute(
            sa.text("UPDATE dispatchers SET heartbeat_at = heartbeat_at - interval '1 minute'")
        )
    return old


def test_a_dispatcher_tells_now_and_then_that_it_is_alive_until_it_leaves(
    database: sa.Engine,
) -> None:
    now = 100.0
    presence = Presence(DispatcherRepository(database), "d", clock=lambda: now)
    presence.run_once()
    assert age(database) < 30
    now += INTERVAL_S - 1
    presence.run_once()
    assert age(database) > 30
    now += 1
    presence.run_once()
    assert age(database) < 30
    presence.leave()
    with database.connect() as connection:
        assert connection.execute(sa.text("SELECT count(*) FROM dispatchers")).scalar_one() == 0
