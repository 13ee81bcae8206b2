"""Fixtures that tests of several folders use."""

pytest_plugins = [
    "tests.fixtures.servers",
    "tests.fixtures.database",
    "tests.fixtures.collector",
    "tests.fixtures.stack",
    "tests.fixtures.stock",
    "tests.fixtures.families",
    "tests.fixtures.sounds",
    "tests.fixtures.tls",
]
