"""The enterprise of an interview, for ever; and what lists of interviews show, beside the texts."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-25T09:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "the enterprise of an interview, and what lists show of it"

# `summary`: {"answered": 3, "questions": 10, "totalScore": 72, "grade": "B", "recommendation": …}.
# A trigger fills both columns in, so that a node of the version before, which does not know them,
# writes rows that this version lists all the same.
STATEMENTS = (
    'ALTER TABLE interviews ADD COLUMN enterprise_id VARCHAR(64) COLLATE "C"',
    "ALTER TABLE interviews ADD COLUMN summary JSON",
    """
    CREATE FUNCTION interviews_fill_in() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        IF NEW.enterprise_id IS NULL THEN
            SELECT enterprise_id INTO NEW.enterprise_id FROM jobs WHERE id = NEW.job_id FOR SHARE;
        END IF;
        NEW.summary := json_strip_nulls(json_build_object(
            'answered', json_array_length(NEW.answers),
            'questions', json_array_length(NEW.outline),
            'totalScore', NEW.report -> 'totalScore',
            'grade', NEW.report -> 'grade',
            'recommendation', NEW.report -> 'recommendation'));
        RETURN NEW;
    END $$
    """,
    """
    CREATE TRIGGER interviews_fill_in BEFORE INSERT OR UPDATE ON interviews
        FOR EACH ROW EXECUTE FUNCTION interviews_fill_in()
    """,
    "UPDATE interviews SET last_seq = last_seq WHERE summary IS NULL",
    """
    CREATE INDEX interviews_of_enterprise
        ON interviews (enterprise_id, created_at DESC, number DESC)
    """,
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def add_columns() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(add_columns)
    return manager
