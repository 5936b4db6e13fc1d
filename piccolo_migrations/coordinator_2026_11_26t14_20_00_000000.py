"""No CHECK on the tables that every event writes to.

PostgreSQL reads a CHECK's expression from its text again in every statement that inserts or updates
a row, and plans it: 30 µs of the 255 µs of CPU that a lone join took (docs/decisions/0011). Nobody
but the rules (`domain/room_rules.py`) says what is written there.
"""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-26T14:20:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "events are written without CHECK constraints"

STATEMENTS = (
    "ALTER TABLE interview_rooms DROP CONSTRAINT IF EXISTS interview_rooms_status_check",
    "ALTER TABLE interview_participants"
    " DROP CONSTRAINT IF EXISTS interview_participants_role_check,"
    " DROP CONSTRAINT IF EXISTS interview_participants_connection_check",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def drop_checks() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(drop_checks)
    return manager
