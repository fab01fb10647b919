"""When steps that may start only so often were started.

Revision ID: 0012
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "paced",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("agent", sa.String(), nullable=False),
        sa.Column("step", sa.String(), nullable=False),
        sa.Column("start", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "agent", "step", "start"),
    )
    op.create_index("paced_number", "paced", ["tenant_id", "agent", "step", "number"], unique=True)
    op.create_index("paced_at", "paced", ["at"])
