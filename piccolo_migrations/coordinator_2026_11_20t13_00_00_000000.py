"""Users, rooms, participants, the log, live connections and nodes."""

from piccolo.apps.migrations.auto.migration_manager import MigrationManager

from coordinator.store.engine import ENGINE

ID = "2026-11-20T13:00:00:000000"
VERSION = "1.38.0"
DESCRIPTION = "rooms, their log, live connections and nodes"

# Ids are compared byte by byte (COLLATE "C"): cheaper, and the same order on every server.
# Rows that change in place leave room for it on their page (fillfactor), so that indexes stay
# still.
STATEMENTS = (
    """
    CREATE TABLE users (
        id SERIAL PRIMARY KEY,
        openid VARCHAR(100) NOT NULL UNIQUE,
        name VARCHAR(100),
        avatar VARCHAR(500),
        phone VARCHAR(20),
        role VARCHAR(10) NOT NULL DEFAULT 'hr' CHECK (role IN ('hr', 'admin')),
        disabled_at TIMESTAMPTZ,
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        updated_at TIMESTAMPTZ NOT NULL DEFAULT now()
    )
    """,
    """
    CREATE TABLE interview_rooms (
        id SERIAL PRIMARY KEY,
        room_id VARCHAR(100) COLLATE "C" NOT NULL UNIQUE,
        room_name VARCHAR(200) NOT NULL,
        host_id INTEGER NOT NULL,
        host_name VARCHAR(100) NOT NULL,
        status VARCHAR(10) NOT NULL DEFAULT 'active' CHECK (status IN ('active', 'ended')),
        created_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        ended_at TIMESTAMPTZ,
        last_seq BIGINT NOT NULL DEFAULT 0,
        last_at TIMESTAMPTZ NOT NULL DEFAULT now(),
        present INTEGER NOT NULL DEFAULT 0,
        guests INTEGER NOT NULL DEFAULT 0,
        online INTEGER NOT NULL DEFAULT 0,
        host_absent_since TIMESTAMPTZ,
        empty_since TIMESTAMPTZ,
        creation UUID NOT NULL DEFAULT gen_random_uuid()
    ) WITH (fillfactor = 50)
    """,
    "CREATE INDEX interview_rooms_by_host ON interview_rooms (host_id, created_at DESC, id DESC)",
    "CREATE INDEX interview_rooms_by_age ON interview_rooms (created_at DESC, id DESC)",
    """
    CREATE INDEX interview_rooms_active ON interview_rooms (created_at)
        WHERE status = 'active'
    """,
    "CREATE INDEX interview_rooms_ended ON interview_rooms (ended_at) WHERE status = 'ended'",
    """
    CREATE TABLE interview_participants (
        id BIGSERIAL PRIMARY KEY,
        room_id VARCHAR(100) COLLATE "C" NOT NULL,
        user_id VARCHAR(100) COLLATE "C" NOT NULL,
        user_name VARCHAR(100) NOT NULL,
        role VARCHAR(10) NOT NULL CHECK (role IN ('host', 'guest')),
        identity VARCHAR(50),
        joined_at TIMESTAMPTZ NOT NULL,
        joined_seq BIGINT NOT NULL,
        left_at TIMESTAMPTZ,
        leave_at TIMESTAMPTZ,
        connection VARCHAR(8) NOT NULL DEFAULT 'none'
            CHECK (connection IN ('none', 'online', 'away')),
        proven BOOLEAN NOT NULL DEFAULT false,
        removed BOOLEAN NOT NULL DEFAULT false,
        UNIQUE (room_id, user_id)
    ) WITH (fillfactor = 80)
    """,
    """
    CREATE INDEX interview_participants_leaving ON interview_participants (leave_at)
        WHERE leave_at IS NOT NULL
    """,
    """
    CREATE TABLE room_events (
        room_id VARCHAR(100) COLLATE "C" NOT NULL,
        seq BIGINT NOT NULL,
        type VARCHAR(30) NOT NULL,
        at TIMESTAMPTZ NOT NULL,
        payload JSON NOT NULL,
        PRIMARY KEY (room_id, seq)
    )
    """,
    """
    CREATE TABLE connections (
        id VARCHAR(32) COLLATE "C" PRIMARY KEY,
        room_id VARCHAR(100) COLLATE "C" NOT NULL,
        user_id VARCHAR(100) COLLATE "C" NOT NULL,
        boot VARCHAR(32) COLLATE "C" NOT NULL,
        connected_at TIMESTAMPTZ NOT NULL
    )
    """,
    "CREATE INDEX connections_of_participant ON connections (room_id, user_id)",
    "CREATE INDEX connections_of_node ON connections (boot)",
    """
    CREATE TABLE nodes (
        boot VARCHAR(32) COLLATE "C" PRIMARY KEY,
        name VARCHAR(100) NOT NULL,
        lease_until TIMESTAMPTZ NOT NULL,
        held_since TIMESTAMPTZ NOT NULL
    )
    """,
    "CREATE TABLE deployment (id UUID PRIMARY KEY DEFAULT gen_random_uuid())",
    "INSERT INTO deployment DEFAULT VALUES",
)


async def forwards() -> MigrationManager:
    manager = MigrationManager(migration_id=ID, app_name="coordinator", description=DESCRIPTION)

    async def make_tables() -> None:
        for statement in STATEMENTS:
            await ENGINE.run_ddl(statement)

    manager.add_raw(make_tables)
    return manager
