"""PostgreSQL, the truth: tables, migrations and the repositories that alone know them."""
