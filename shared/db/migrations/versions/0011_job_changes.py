"""Every change that somebody may wait for, told to those who listen."""

from alembic import op

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    # The id alone: whoever listens may read only what it may see.
    op.execute("""
        CREATE FUNCTION tell_of_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            PERFORM pg_notify('job_changes', NEW.id);
            RETURN NULL;
        END $$
    """)
    # Not after inserts: nobody waits for a job that was not there.
    op.execute("""
        CREATE TRIGGER tell_of_change
        AFTER UPDATE OF status, attempt, iteration, cancel_requested_at ON jobs
        FOR EACH ROW WHEN (
            (OLD.status, OLD.attempt, OLD.iteration, OLD.cancel_requested_at)
            IS DISTINCT FROM (NEW.status, NEW.attempt, NEW.iteration, NEW.cancel_requested_at)
        )
        EXECUTE FUNCTION tell_of_change()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER tell_of_change ON jobs")
    op.execute("DROP FUNCTION tell_of_change")
