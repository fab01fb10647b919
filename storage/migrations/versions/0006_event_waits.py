"""What runs wait for from outside themselves: named events, and calls of addresses of their own.

Revision ID: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "event_wait",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("subject", sa.String(600), nullable=False),
        sa.Column("token_hash", sa.String(64), nullable=True),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("iteration", sa.String(), nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("expires_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    op.create_index("event_wait_token", "event_wait", ["token_hash"], unique=True)
    op.create_index("event_wait_for", "event_wait", ["tenant_id", "subject", "state"])
    op.create_index("event_wait_of_run", "event_wait", ["tenant_id", "run_id"])
    op.create_index("event_wait_expires", "event_wait", ["expires_at"])
