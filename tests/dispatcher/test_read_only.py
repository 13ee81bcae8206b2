import sqlalchemy as sa

from dispatcher.read_only import unless_read_only
from shared.db.read_only import ReadOnlyRepository


def test_a_service_rests_while_nothing_may_be_changed(database: sa.Engine) -> None:
    operator = ReadOnlyRepository(database)
    rounds: list[None] = []
    run = unless_read_only(operator, lambda: rounds.append(None))
    run()
    operator.turn_on("a backup")
    run()
    run()
    assert len(rounds) == 1
    operator.turn_off()
    run()
    assert len(rounds) == 2
