"""Epochs: which history the database is in, and which one an event belongs to."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T10:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "epochs, a random version of a room's row, an order of connections"

# Constant defaults rewrite nothing, and a node of the version before writes beside this one: its
# events have no epoch, and the rooms that it changes another version than the one remembered here
# (`xmin` tells them apart, since it does not know `version`).
STATEMENTS = (
    "ALTER TABLE deployment ADD COLUMN epoch VARCHAR(16) COLLATE \"C\" NOT NULL DEFAULT ''",
    'ALTER TABLE deployment ADD COLUMN fingerprint VARCHAR(64) COLLATE "C"',
    "ALTER TABLE room_events ADD COLUMN epoch VARCHAR(16) COLLATE \"C\" NOT NULL DEFAULT ''",
    "ALTER TABLE interview_events ADD COLUMN epoch VARCHAR(16) COLLATE \"C\" NOT NULL DEFAULT ''",
    "ALTER TABLE interview_rooms ADD COLUMN version BIGINT NOT NULL DEFAULT 0",
    # Which connection is the oldest: counted under the room's lock, whoever opens it.
    "CREATE SEQUENCE connections_number",
    "ALTER TABLE connections ADD COLUMN number BIGINT",
    "ALTER TABLE connections ALTER COLUMN number SET DEFAULT nextval('connections_number')",
    "ALTER SEQUENCE connections_number OWNED BY connections.number",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def add_columns() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add_columns)
    return manager
