"""The first tables.

Revision ID: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "document",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "hash"),
    )
    op.create_table(
        "blueprint",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("name", sa.String(), nullable=False),
        sa.Column("description", sa.Text(), nullable=False),
        sa.Column("document", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("updated_at", sa.Float(), nullable=False),
        sa.Column("updated_by", sa.String(), nullable=False),
        sa.Column("deleted_at", sa.Float(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
    )
    op.create_table(
        "version",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("blueprint_id", sa.String(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("content_hash", sa.String(64), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("created_at", sa.Float(), nullable=False),
        sa.Column("created_by", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "blueprint_id", "number"),
        sa.ForeignKeyConstraint(["tenant_id", "blueprint_id"], ["blueprint.tenant_id", "blueprint.id"]),
        sa.ForeignKeyConstraint(["tenant_id", "content_hash"], ["document.tenant_id", "document.hash"]),
    )
    _runs()


def _runs() -> None:
    op.create_table(
        "run",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("id", sa.String(), nullable=False),
        sa.Column("blueprint_id", sa.String(), nullable=False),
        sa.Column("blueprint_name", sa.String(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=True),
        sa.Column("deployment_id", sa.String(), nullable=True),
        sa.Column("document_hash", sa.String(64), nullable=False),
        sa.Column("trigger", sa.String(), nullable=False),
        sa.Column("started_by", sa.String(), nullable=False),
        sa.Column("state", sa.String(), nullable=False),
        sa.Column("accepted_at", sa.Float(), nullable=False),
        sa.Column("finished_at", sa.Float(), nullable=True),
        sa.Column("wake_at", sa.Float(), nullable=True),
        sa.Column("parent_run", sa.String(), nullable=True),
        sa.Column("parent_step", sa.String(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("tenant_id", "id"),
        sa.ForeignKeyConstraint(["tenant_id", "document_hash"], ["document.tenant_id", "document.hash"]),
    )
    op.create_index("run_of_blueprint", "run", ["tenant_id", "blueprint_id", "id"])
    op.create_index("run_in_state", "run", ["tenant_id", "state", "id"])
    _partial_index("run_of_parent", "run", ["tenant_id", "parent_run"], "parent_run IS NOT NULL")
    _partial_index("run_unfinished", "run", ["id"], "finished_at IS NULL")
    _partial_index("run_to_wake", "run", ["wake_at"], "wake_at IS NOT NULL")
    op.create_table(
        "journal",
        sa.Column("tenant_id", sa.String(), nullable=False),
        sa.Column("run_id", sa.String(), nullable=False),
        sa.Column("seq", sa.Integer(), nullable=False),
        sa.Column("facts", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "run_id", "seq"),
        sa.ForeignKeyConstraint(["tenant_id", "run_id"], ["run.tenant_id", "run.id"]),
        sqlite_with_rowid=False,
    )


def _partial_index(name: str, table: str, columns: list[str], where: str) -> None:
    op.create_index(name, table, columns, sqlite_where=sa.text(where), postgresql_where=sa.text(where))


def downgrade() -> None:
    raise NotImplementedError("Restore a backup instead.")
