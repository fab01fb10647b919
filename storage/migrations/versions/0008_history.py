"""What is looked for among all that has happened is found without reading it: ends of an agent's runs, retries that began.

Revision ID: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    ended = sa.text("finished_at IS NOT NULL")
    op.create_index("run_ended", "run", ["blueprint_id", "finished_at"], sqlite_where=ended, postgresql_where=ended)
    op.add_column("dead_letter", sa.Column("begun_at", sa.Float(), nullable=True))
    op.execute(
        "UPDATE dead_letter SET begun_at = done_at WHERE state = 'retried' AND EXISTS (SELECT 1 FROM run"
        " WHERE run.tenant_id = dead_letter.tenant_id AND run.id = dead_letter.retry_run)"
    )
    unsure = sa.text("state = 'retried' AND begun_at IS NULL")
    op.create_index("dead_letter_unsure", "dead_letter", ["done_at"], sqlite_where=unsure, postgresql_where=unsure)
    op.drop_index("dead_letter_done", "dead_letter")


def downgrade() -> None:
    raise NotImplementedError("Restore a backup that was made before the upgrade.")
