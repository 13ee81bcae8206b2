"""A backlog of queued jobs in a database, with the past that a database in use has."""

import sqlalchemy as sa

QUEUE = "demo.interactive"
#: Of the jobs that are queued, one in so many waits for a time, and as many are in another queue.
HELD_EVERY, OTHER_EVERY = 20, 10

_FILL = sa.text("""
INSERT INTO jobs (id, tenant, queue, model, preset_name, preset_version, request, metadata,
                  priority, megapixel_iterations, predicted_s, created_at, deadline_at,
                  virtual_birth, held_until, status)
SELECT format('job_%s_%s', CAST(:status AS text), n),
       -- Every other job is of the same tenant; the others have equally many.
       format('tenant-%s', CASE n % 2 WHEN 0 THEN 0 ELSE n / 2 % :num_tenants END),
       CASE WHEN n % :other_every = 0 THEN 'demo.batch' ELSE :queue END,
       'demo', 'balanced', 1,
       jsonb_build_object('sampler', 'euler', 'schedule', 'native', 'steps', 25, 'guidance', 7.5,
                          'width', 64, 'height', 64, 'prompt', repeat('word ', 30),
                          'model', 'demo', 'seed', n),
       '{}', n % 10, 0.1 + n % 7, 0.5 + n % 11, birth, birth + interval '7 days',
       birth - n % 10 * interval '300 seconds',
       CASE WHEN :status = 'queued' AND n % :held_every = 1 THEN now() + interval '1 day' END,
       :status
  FROM (SELECT n, now() - (:num_jobs - n) * interval '10 milliseconds' AS birth
          FROM generate_series(1, :num_jobs) AS n) AS births
""")
_END = sa.text("""
UPDATE jobs SET status = 'canceled', dispatched_at = NULL, finished_at = now()
 WHERE status = 'queued' AND dispatched_at IS NOT NULL
""")
_ANALYZE = sa.text("ANALYZE jobs")


def fill(database: sa.Engine, *, num_jobs: int, num_tenants: int) -> None:
    """Insert so many queued jobs, and as many that have ended."""
    values = {
        "num_jobs": num_jobs,
        "num_tenants": num_tenants,
        "queue": QUEUE,
        "held_every": HELD_EVERY,
        "other_every": OTHER_EVERY,
    }
    for status in ("succeeded", "queued"):
        with database.begin() as connection:
            # It takes longer than a statement of the service may.
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            connection.execute(_FILL, values | {"status": status})
    with database.begin() as connection:
        connection.execute(_ANALYZE)


def end_announced(database: sa.Engine) -> None:
    """End every job that was announced, which leaves its place in the window to another."""
    with database.begin() as connection:
        connection.execute(_END)
