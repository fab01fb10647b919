"""Dead letters: failed runs say what kind of trouble it was and what was done about it.

Revision ID: 0004
"""

import orjson
import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run", sa.Column("category", sa.String(), nullable=True))
    op.add_column("run", sa.Column("handled", sa.String(), nullable=True))
    unhandled = sa.text("state = 'failed' AND handled IS NULL")
    op.create_index("run_unhandled", "run", ["tenant_id", "id"], sqlite_where=unhandled, postgresql_where=unhandled)
    op.create_table(
        "dead_letter",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("done_by", sa.String(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=False),
        sa.Column("retry_run", sa.String(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "run_id"),
    )
    op.create_index("dead_letter_retry", "dead_letter", ["retry_run"])
    op.create_index("dead_letter_done", "dead_letter", ["done_at"])
    op.execute("UPDATE run SET handled = 'told' WHERE state = 'failed' AND parent_run IS NOT NULL")
    _categories()


def _categories() -> None:
    """What failed before knows its category from its error."""
    run = sa.table("run", sa.column("tenant_id"), sa.column("id"), sa.column("error"), sa.column("category"))
    connection = op.get_bind()
    failed = connection.execute(
        sa.select(run.c.tenant_id, run.c.id, run.c.error).where(
            sa.column("state") == "failed", run.c.error.is_not(None)
        )
    ).all()
    for tenant, id, error in failed:
        category = orjson.loads(error).get("category")
        if isinstance(category, str):
            own = sa.update(run).where(run.c.tenant_id == tenant, run.c.id == id)
            connection.execute(own.values(category=category))


def downgrade() -> None:
    raise NotImplementedError("What people did about failed runs would be lost. Restore a backup instead.")
