"""Open connections that are marked away have rows of their own, so that every node counts them."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-26T20:30:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "open connections that are marked away"

STATEMENTS = (
    """
    CREATE TABLE away_connections (
        id VARCHAR(32) COLLATE "C" PRIMARY KEY,
        room_id VARCHAR(100) COLLATE "C" NOT NULL,
        user_id VARCHAR(100) COLLATE "C" NOT NULL,
        boot VARCHAR(32) COLLATE "C" NOT NULL,
        connected_at TIMESTAMPTZ NOT NULL,
        number BIGINT
    )
    """,
    "CREATE INDEX away_connections_of_participant ON away_connections (room_id, user_id)",
    "CREATE INDEX away_connections_of_node_by_id ON away_connections (boot, id)",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def make_table() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(make_table)
    return manager
