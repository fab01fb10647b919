"""Environments: deployments, runs and secrets belong to one; variables; calls held while paused; cases.

Revision ID: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    _deployments()
    _secrets()
    op.add_column("run", sa.Column("environment", sa.String(), nullable=False, server_default="live"))
    op.create_table(
        "variable",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(20), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "environment", "name"),
    )
    op.create_table(
        "held_call",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("deployment_id", sa.String(), nullable=False),
        sa.Column("node", sa.String(), nullable=False),
        sa.Column("event", sa.Text(), nullable=True),
        sa.Column("at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
        sa.ForeignKeyConstraint(["tenant_id", "deployment_id"], ["deployment.tenant_id", "deployment.id"]),
    )
    op.create_index("held_call_of_deployment", "held_call", ["tenant_id", "deployment_id", "id"])
    op.create_table(
        "agent_case",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("blueprint_id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("input", sa.Text(), nullable=True),
        sa.Column("expects", sa.String(), nullable=False),
        sa.Column("formula", sa.Text(), nullable=False),
        sa.Column("pretend", sa.Text(), nullable=True),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    op.create_index("case_of_blueprint", "agent_case", ["tenant_id", "blueprint_id", "id"])


def _deployments() -> None:
    """What was deployed was live."""
    op.add_column("deployment", sa.Column("environment", sa.String(), nullable=False, server_default="live"))
    op.add_column("deployment", sa.Column("hold", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("deployment", sa.Column("clocks", sa.Boolean(), nullable=False, server_default=sa.true()))
    op.add_column("deployment", sa.Column("waiver", sa.String(), nullable=True))
    op.drop_index("deployment_live", "deployment")
    unstopped = sa.text("state <> 'stopped'")
    op.create_index(
        "deployment_live",
        "deployment",
        ["tenant_id", "blueprint_id", "environment"],
        unique=True,
        sqlite_where=unstopped,
        postgresql_where=unstopped,
    )


def _secrets() -> None:
    """The environment becomes part of the key; what was kept before is shared by all environments."""
    op.rename_table("secret", "secret_before")
    op.create_table(
        "secret",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("environment", sa.String(20), nullable=False),
        sa.Column("name", sa.String(120), nullable=False),
        sa.Column("ciphertext", sa.Text(), nullable=False),
        sa.Column("nonce", sa.String(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "environment", "name", name="secret_key"),
    )
    op.execute(
        "INSERT INTO secret (tenant_id, environment, name, ciphertext, nonce, updated_at, updated_by)"
        " SELECT tenant_id, '', name, ciphertext, nonce, updated_at, updated_by FROM secret_before"
    )
    op.drop_table("secret_before")


def downgrade() -> None:
    raise NotImplementedError("Two environments do not fit into one. Restore a backup instead.")
