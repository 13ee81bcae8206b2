from worker.engine.shares import Shares


def test_who_comes_anew_starts_with_the_least_served() -> None:
    shares = Shares()
    shares.join("a")
    shares.charge("a", 500.0)
    shares.join("b")
    assert shares.leads() == {"a": 0.0, "b": 0.0}
    shares.charge("a", 30.0)
    shares.join("c")
    assert shares.leads() == {"a": 30.0, "b": 0.0, "c": 0.0}


def test_a_tenant_stays_known_until_its_last_entry_leaves() -> None:
    shares = Shares()
    for tenant in ("a", "a", "b"):
        shares.join(tenant)
    shares.charge("a", 10.0)
    shares.leave("a")
    assert shares.leads() == {"a": 10.0, "b": 0.0}
    shares.leave("a")
    shares.join("a")
    assert shares.leads() == {"a": 0.0, "b": 0.0}
