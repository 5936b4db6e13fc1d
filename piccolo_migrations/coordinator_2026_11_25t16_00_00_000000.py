"""The bus: over how many channels it is spread, who is deaf to it, and who has which duty."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T16:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "channels of the bus, deaf nodes, duties"

# A node of the version before writes its lease beside this one: it speaks 1, and is never deaf.
STATEMENTS = (
    "ALTER TABLE deployment ADD COLUMN channels INTEGER NOT NULL DEFAULT 1 CHECK (channels > 0)",
    "ALTER TABLE nodes ADD COLUMN speaks SMALLINT NOT NULL DEFAULT 1",
    "ALTER TABLE nodes ADD COLUMN deaf_since TIMESTAMPTZ",
    """
    CREATE TABLE duties (
        kind VARCHAR(30) COLLATE "C" PRIMARY KEY,
        holder VARCHAR(32) COLLATE "C" NOT NULL,
        held_until TIMESTAMPTZ NOT NULL,
        generation BIGINT NOT NULL
    )
    """,
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def add_columns() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add_columns)
    return manager
