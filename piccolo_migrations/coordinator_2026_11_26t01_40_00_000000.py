"""Feeds spread over many channels of the bus; a node's connections are read a page at a time."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-26T01:40:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "262,144 channels of the bus, who uses how many, connections of a node in order"

# Each can be repeated: an index that is built beside nodes that serve needs no transaction.
# A node of the version before that started with one channel goes on with it: its lease says 1.
STATEMENTS = (
    "ALTER TABLE nodes ADD COLUMN IF NOT EXISTS channels INTEGER NOT NULL DEFAULT 1",
    "ALTER TABLE deployment ALTER COLUMN channels SET DEFAULT 262144",
    "UPDATE deployment SET channels = 262144 WHERE channels = 1",
    "CREATE INDEX CONCURRENTLY IF NOT EXISTS connections_of_node_by_id ON connections (boot, id)",
    "DROP INDEX CONCURRENTLY IF EXISTS connections_of_node",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(
        migration_id=ID, app_name="coordinator", description=DESCRIPTION, wrap_in_transaction=False
    )

    async def spread() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(spread)
    return manager
