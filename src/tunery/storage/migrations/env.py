"""Alembic's entry: runs the migrations inside the transaction that `migrate` opened."""

from alembic import context

from tunery.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
)
context.run_migrations()
