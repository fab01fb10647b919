"""What agents listen for inside the product, limits that a tenant lowered, schedules held one by one, keys of calls.

Revision ID: 0005
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "tenant_limit",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.BigInteger(), nullable=False),
        sa.Column("set_at", sa.Float(), nullable=False),
        sa.Column("set_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "name"),
    )
    op.create_table(
        "listener",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("subject", sa.String(255), nullable=False),
        sa.Column("states", sa.Text(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("blueprint_id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("since", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
        sa.ForeignKeyConstraint(["tenant_id", "deployment_id"], ["deployment.tenant_id", "deployment.id"]),
    )
    op.create_index("listener_of_deployment", "listener", ["tenant_id", "deployment_id"])
    op.create_index("listener_to", "listener", ["tenant_id", "kind", "subject"])
    op.create_table(
        "happening",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("listener_id", sa.String(), nullable=False),
        sa.Column("cause", sa.String(300), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("depth", sa.Integer(), nullable=False),
        sa.Column("event", sa.Text(), nullable=True),
        sa.Column("happened_at", sa.Float(), nullable=False),
        sa.Column("done_at", sa.Float(), nullable=True),
        sa.Column("note", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "listener_id", "cause"),
    )
    still_open = sa.text("done_at IS NULL")
    op.create_index(
        "happening_open", "happening", ["happened_at"], sqlite_where=still_open, postgresql_where=still_open
    )
    op.create_index("happening_run", "happening", ["run_id"])
    op.create_index("happening_done", "happening", ["done_at"])
    op.add_column("schedule", sa.Column("held", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("event_seen", sa.Column("run_id", sa.String(), nullable=True))
    op.add_column("event_seen", sa.Column("digest", sa.String(64), nullable=True))
