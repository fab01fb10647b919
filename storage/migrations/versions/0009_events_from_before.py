"""An event that was sent is kept for those who begin to wait a little later; each wait says which event it has heard.

Revision ID: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("event_wait", sa.Column("heard", sa.String(64), nullable=True))


def downgrade() -> None:
    raise NotImplementedError("Restore a backup that was made before the upgrade.")
