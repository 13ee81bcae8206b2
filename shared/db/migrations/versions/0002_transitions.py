"""Every change of a job's status, written by the database itself."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "transitions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("from_status", sa.Text(), nullable=True),
        sa.Column("to_status", sa.Text(), nullable=False),
        sa.Column(
            "at",
            sa.TIMESTAMP(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="pk_transitions"),
    )
    op.create_index("ix_transitions_job", "transitions", ["job_id", "id"])
    # A trigger: no statement that is added one day can forget it.
    op.execute("""
        CREATE FUNCTION note_transition() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO transitions (job_id, attempt, from_status, to_status)
            VALUES (NEW.id, NEW.attempt,
                    CASE WHEN TG_OP = 'UPDATE' THEN OLD.status END, NEW.status);
            RETURN NULL;
        END $$
    """)
    op.execute("""
        CREATE TRIGGER note_birth AFTER INSERT ON jobs
        FOR EACH ROW EXECUTE FUNCTION note_transition()
    """)
    op.execute("""
        CREATE TRIGGER note_change AFTER UPDATE OF status ON jobs
        FOR EACH ROW WHEN (OLD.status IS DISTINCT FROM NEW.status)
        EXECUTE FUNCTION note_transition()
    """)
    # What was written is never changed, by anybody.
    op.execute("""
        CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            RAISE EXCEPTION 'transitions are only ever added';
        END $$
    """)
    op.execute("""
        CREATE TRIGGER append_only BEFORE UPDATE ON transitions
        FOR EACH ROW EXECUTE FUNCTION refuse_change()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER note_change ON jobs")
    op.execute("DROP TRIGGER note_birth ON jobs")
    op.drop_table("transitions")
    op.execute("DROP FUNCTION note_transition")
    op.execute("DROP FUNCTION refuse_change")
