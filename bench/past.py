"""A past of jobs that have ended, made by SQL: what a database holds after long use."""

import sqlalchemy as sa

#: Whose every other job is.
TENANT = "tenant-0"
#: Of the jobs that have ended, one in so many has failed.
FAILED_EVERY = 100
#: Rows of one transaction.
MAX_ROWS = 100_000

#: One job after the other within the last day, their ids in the order of time as real ones are.
_PAST = """
SELECT n, 'job_' || lpad(to_hex(n), 32, '0') AS id,
       CASE WHEN n % :failed_every = 0 THEN 'failed' ELSE 'succeeded' END AS status,
       now() - interval '1 minute' - (:num_jobs - n) * (interval '20 hours' / :num_jobs) AS birth
  FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) AS n
"""
_JOBS = f"""
INSERT INTO jobs (id, tenant, status, queue, model, preset_name, preset_version, request, metadata,
                  priority, megapixel_iterations, created_at, deadline_at, virtual_birth,
                  started_at, finished_at, attempt, iteration, iterations, predicted_s,
                  error_code, error_message, execution, key_id)
SELECT id, format('tenant-%s', CASE n % 2 WHEN 0 THEN 0 ELSE n / 2 % :num_tenants END), status,
       'demo.interactive', 'demo', 'balanced', 1,
       jsonb_build_object('prompt', repeat('word ', 30), 'model', 'demo', 'sampler', 'dpmpp_2m',
                          'schedule', 'native', 'steps', 25, 'guidance', 2, 'seed', n,
                          'width', 64, 'height', 64, 'num_outputs', 1, 'output_format', 'png'),
       '{{"customer": "one"}}', 5, 0.1, birth, birth + interval '1 day', birth,
       birth + interval '5 seconds', birth + interval '15 seconds', 1, 25, 25, 1.5,
       CASE status WHEN 'failed' THEN 'internal' END, CASE status WHEN 'failed' THEN 'no' END,
       CASE status WHEN 'succeeded' THEN jsonb_build_object(
           'worker', 'worker-1', 'device', 'cpu', 'determinism', 'fast', 'mean_rows', 4.2,
           'device_options', jsonb_build_object(), 'decoder_tiles', 1, 'versions',
           jsonb_build_object('latentq', '0.1.0', 'torch', '2.13.0', 'python', '3.11.7')) END,
       'key'
  FROM ({_PAST}) AS past
"""  # noqa: S608 - put together of constants
_ATTEMPTS = f"""
INSERT INTO attempts (job_id, attempt, token, worker, process, started_at, ended_at, outcome,
                      iteration)
SELECT id, 1, gen_random_uuid(), 'worker-1', 'worker-1@host:1', birth + interval '5 seconds',
       birth + interval '15 seconds', status, 25
  FROM ({_PAST}) AS past
"""  # noqa: S608
_ARTIFACTS = f"""
INSERT INTO artifacts (job_id, output_index, key, content_type, width, height, seed, sha256,
                       num_bytes)
SELECT id, 0, format('results/%s/1-%s/0.png', id, gen_random_uuid()), 'image/png', 64, 64, n,
       repeat('ab', 32), 10000
  FROM ({_PAST}) AS past WHERE status = 'succeeded'
"""  # noqa: S608
_TRANSITIONS = f"""
INSERT INTO transitions (job_id, attempt, from_status, to_status, at)
SELECT id, step.attempt, step.from_status, coalesce(step.to_status, past.status), birth + step.age
  FROM ({_PAST}) AS past
 CROSS JOIN (VALUES (0, NULL, 'queued', interval '0'),
                    (1, 'queued', 'running', interval '5 seconds'),
                    (1, 'running', NULL, interval '15 seconds'))
         AS step (attempt, from_status, to_status, age)
 ORDER BY n, step.age
"""  # noqa: S608


def add_past(database: sa.Engine, *, num_jobs: int, num_tenants: int) -> None:
    """Insert so many jobs that have ended, each with its attempt, its output and its history."""
    for first in range(1, num_jobs + 1, MAX_ROWS):
        values = {
            "num_jobs": num_jobs,
            "num_tenants": num_tenants,
            "failed_every": FAILED_EVERY,
            "first": first,
            "last": min(first + MAX_ROWS - 1, num_jobs),
        }
        with database.begin() as connection:
            # The history comes in one statement, where the triggers would write row by row.
            connection.execute(sa.text("SET LOCAL session_replication_role = replica"))
            connection.execute(sa.text("SET LOCAL statement_timeout = 0"))
            for statement in (_JOBS, _ATTEMPTS, _ARTIFACTS, _TRANSITIONS):
                connection.execute(sa.text(statement), values)


def tidy(database: sa.Engine) -> None:
    """Do what PostgreSQL would do by itself later, in the middle of a measurement."""
    with database.execution_options(isolation_level="AUTOCOMMIT").connect() as connection:
        connection.execute(sa.text("SET statement_timeout = 0"))
        connection.execute(sa.text("VACUUM ANALYZE"))
        connection.execute(sa.text("CHECKPOINT"))
        connection.execute(sa.text("RESET statement_timeout"))
