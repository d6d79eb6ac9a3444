"""Jobs that were carried out elsewhere, and jobs whose models answer to such a one's old name."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add where a job was imported from, and whose name its model takes over."""
    op.add_column("jobs", sa.Column("imported_from", sa.Text(), nullable=True))
    op.add_column("jobs", sa.Column("replaces", sa.Text(), nullable=True))
