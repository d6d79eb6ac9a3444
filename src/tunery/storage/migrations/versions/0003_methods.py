"""How a job trains, and when it will have ended: those that are there are supervised."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the method of a job, and its estimated end."""
    op.add_column(
        "jobs",
        sa.Column("method", sa.String(length=24), nullable=False, server_default="supervised"),
    )
    op.add_column("jobs", sa.Column("estimated_finish", sa.BigInteger(), nullable=True))
