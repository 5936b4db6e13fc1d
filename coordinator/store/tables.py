"""The tables, as Piccolo knows them. The migrations make them; a test holds the two together.

Names of the REST document's section 8 are kept. A room's public id is its key everywhere: one word
for one thing, and an operator can read every table by it. Room, participants, events and
connections of a room change only while its row is locked (`room_writer`); there are no foreign
keys between them, since that lock already guards what they would check, once per row and write.
"""

from __future__ import annotations

from piccolo.columns import (
    JSON,
    UUID,
    BigInt,
    BigSerial,
    Boolean,
    Bytea,
    ForeignKey,
    Integer,
    Serial,
    SmallInt,
    Text,
    Timestamptz,
    Varchar,
)
from piccolo.table import Table

from coordinator.store.engine import ENGINE


class Users(Table, tablename="users", db=ENGINE):
    """Staff. `id` 1 is `user_001` outside.

    `phone_encrypted` is the number (`data_cipher`); `phone` is written by versions that knew no
    other, and emptied when none of them runs any more.
    """

    id = Serial(primary_key=True)
    openid = Varchar(100, unique=True)
    name = Varchar(100, null=True, default=None)
    avatar = Varchar(500, null=True, default=None)
    phone = Varchar(20, null=True, default=None)
    phone_encrypted = Varchar(200, null=True, default=None)
    role = Varchar(10)
    disabled_at = Timestamptz(null=True, default=None)
    created_at = Timestamptz()
    updated_at = Timestamptz()


class InterviewRooms(Table, tablename="interview_rooms", db=ENGINE):
    """A room, and what its rules need without reading anybody else.

    `last_seq` and `last_at` are the log's end. `present` counts who is in the room, `guests` those
    of them but the host, `online` the
    participants with a live connection. `host_absent_since` and `empty_since` are null while the
    host is connected, and while there is a live connection or a guest. `creation` is made by the
    creator before the statement, so that a repeat after a lost answer knows its own room. `version`
    is a random number of the last write: with the row's `xmin` it tells whether it is the row that
    a node remembers. `attended` says how many people were ever in an ended room whose people are no
    longer kept. `erasures` counts how often somebody was erased from it.
    """

    id = Serial(primary_key=True)
    room_id = Varchar(100, unique=True)
    room_name = Varchar(200)
    host_id = Integer()
    host_name = Varchar(100)
    status = Varchar(10)
    created_at = Timestamptz()
    ended_at = Timestamptz(null=True, default=None)
    last_seq = BigInt()
    last_at = Timestamptz()
    present = Integer()
    guests = Integer()
    online = Integer()
    host_absent_since = Timestamptz(null=True, default=None)
    empty_since = Timestamptz(null=True, default=None)
    creation = UUID()
    attended = Integer(null=True, default=None)
    version = BigInt()
    erasures = Integer()


class InterviewParticipants(Table, tablename="interview_participants", db=ENGINE):
    """One row for each person who was ever in a room; `left_at` null = in it now.

    `connection` is `none`, `online` or `away`; away has a deadline, `leave_at`. `joined_seq` is the
    seq of its latest join. `proven`: it has used a token of its own here. `removed`: put out for
    good. `joined_from`: digest of its address, where seats are counted (`services/seat_limit.py`).
    """

    id = BigSerial(primary_key=True)
    room_id = Varchar(100)
    user_id = Varchar(100)
    user_name = Varchar(100)
    role = Varchar(10)
    identity = Varchar(50, null=True, default=None)
    joined_at = Timestamptz()
    joined_seq = BigInt()
    left_at = Timestamptz(null=True, default=None)
    leave_at = Timestamptz(null=True, default=None)
    connection = Varchar(8)
    proven = Boolean()
    removed = Boolean()
    joined_from = Varchar(32, null=True, default=None)


class RoomEvents(Table, tablename="room_events", db=ENGINE):
    """The log: one row per change, `seq` 1, 2, 3 … in each room. Its key is (room_id, seq).

    `epoch` is the history that the event was written in; '' by a version that knew none.
    """

    room_id = Varchar(100, primary_key=True)
    seq = BigInt()
    type = Varchar(30)
    at = Timestamptz()
    payload = JSON()
    epoch = Varchar(16)


class Connections(Table, tablename="connections", db=ENGINE):
    """One row per live connection of a participant, owned by a run of a node (`boot`).

    `number` grows in the order in which they were opened; null: opened by a version before it.
    """

    id = Varchar(32, primary_key=True)
    room_id = Varchar(100)
    user_id = Varchar(100)
    boot = Varchar(32)
    connected_at = Timestamptz()
    number = BigInt(null=True, default=None)


class AwayConnections(Table, tablename="away_connections", db=ENGINE):
    """One row per open connection that is marked away, with what it had in `connections`.

    A table of its own: to a node of a version before it, every row of `connections` is live.
    """

    id = Varchar(32, primary_key=True)
    room_id = Varchar(100)
    user_id = Varchar(100)
    boot = Varchar(32)
    connected_at = Timestamptz()
    number = BigInt(null=True, default=None)


class NodesTable(Table, tablename="nodes", db=ENGINE):
    """One row per running node: its lease. `held_since`: since when it has been held unbroken.

    `speaks`: the version of what it says on the bus, `channels`: over how many it spreads feeds
    there. `deaf_since`: since when it has not heard the judge there.
    """

    boot = Varchar(32, primary_key=True)
    name = Varchar(100)
    lease_until = Timestamptz()
    held_since = Timestamptz()
    speaks = SmallInt()
    channels = Integer()
    deaf_since = Timestamptz(null=True, default=None)


class DutiesTable(Table, tablename="duties", db=ENGINE):
    """What one node at a time does for all: `holder` is its node epoch (`store/duties.py`)."""

    kind = Varchar(30, primary_key=True)
    holder = Varchar(32)
    held_until = Timestamptz()
    generation = BigInt()


class DeploymentTable(Table, tablename="deployment", db=ENGINE):
    """One row that names this database: it sets this deployment's channels on a shared Redis apart.

    `epoch` names the history that it is in, `fingerprint` the server for which that was made
    (`store/epochs.py`). `channels`: over how many the bus spreads the feeds; nodes read it when
    they start.
    """

    id = UUID(primary_key=True)
    channels = Integer()
    epoch = Varchar(16)
    fingerprint = Varchar(64, null=True, default=None)


class QrImages(Table, tablename="qr_images", db=ENGINE):
    """The picture of a mini-program code: `digest` stands for all that was asked of WeChat.

    `asked_at` is when somebody wanted it last, to a day.
    """

    digest = Varchar(64, primary_key=True)
    name = Varchar(40, unique=True)
    image = Bytea()
    created_at = Timestamptz()
    asked_at = Timestamptz()


class Enterprises(Table, tablename="enterprises", db=ENGINE):
    """Who offers jobs; a key of the open API may be bound to one."""

    id = Varchar(64, primary_key=True)
    name = Varchar(200)


class JobsTable(Table, tablename="jobs", db=ENGINE):
    """What an interview is about. `number` grows: it breaks ties of `created_at` in lists."""

    id = Varchar(64, primary_key=True)
    number = BigSerial()
    enterprise_id = ForeignKey(Enterprises, null=False)
    title = Varchar(200)
    description = Text(null=True, default=None)
    requirements = Text(null=True, default=None)
    skills = JSON()
    salary_min = BigInt(null=True, default=None)
    salary_max = BigInt(null=True, default=None)
    location = Varchar(200, null=True, default=None)
    created_at = Timestamptz()
    updated_at = Timestamptz()


class InterviewsTable(Table, tablename="interviews", db=ENGINE):
    """An AI interview. Its row and its log change in one transaction, while the row is locked.

    `created_by` and `updated_by` name keys of the open API. `enterprise_id` is its job's when it
    was made, for ever. `fingerprint` is a digest of what makes two calls to create it the same,
    `body_digest` of the whole body, where an `idempotency_key` came with it. `report` holds the
    members of the report that are set. `last_seq` is the log's end, `updated_at` the time of its
    last event. `summary` is what lists show of the texts; the database fills it in. `erasures`
    counts how often its person was erased.
    """

    id = Varchar(64, primary_key=True)
    number = BigSerial()
    external_user_id = Varchar(255)
    job_id = ForeignKey(JobsTable, null=False)
    enterprise_id = ForeignKey(Enterprises, null=True, default=None)
    status = Varchar(20)
    outline = JSON()
    current_index = BigInt()
    answers = JSON()
    report = JSON()
    summary = JSON(null=True, default=None)
    resume_id = Varchar(255, null=True, default=None)
    created_by = Varchar(100)
    updated_by = Varchar(100)
    fingerprint = Varchar(64)
    idempotency_key = Varchar(255, null=True, default=None)
    body_digest = Varchar(64, null=True, default=None)
    created_at = Timestamptz()
    updated_at = Timestamptz()
    last_seq = BigInt()
    erasures = Integer()


class InterviewEvents(Table, tablename="interview_events", db=ENGINE):
    """The log of an interview, as `RoomEvents` is of a room. Its key is (interview_id, seq)."""

    interview_id = Varchar(64, primary_key=True)
    seq = BigInt()
    type = Varchar(30)
    at = Timestamptz()
    payload = JSON()
    epoch = Varchar(16)
    writes_report = Boolean()


class ConsoleCodes(Table, tablename="console_codes", db=ENGINE):
    """Sign-in links of the console: `digest` is that of the code in the link."""

    digest = Varchar(64, primary_key=True)
    user_id = Integer()
    is_reusable = Boolean()
    expires_at = Timestamptz()


class ConsoleTickets(Table, tablename="console_tickets", db=ENGINE):
    """Browsers that ask to be signed in by WeChat; `user_id` is who has confirmed it."""

    digest = Varchar(64, primary_key=True)
    scan_digest = Varchar(64, unique=True)
    match = Varchar(2)
    browser = Varchar(200)
    address = Varchar(100)
    user_id = Integer(null=True, default=None)
    expires_at = Timestamptz()


class RevokedSessions(Table, tablename="revoked_sessions", db=ENGINE):
    """Sessions that were signed out before their tokens ended (`expires_at`)."""

    jti = Varchar(64, primary_key=True)
    expires_at = Timestamptz()


class NodeReportsTable(Table, tablename="node_reports", db=ENGINE):
    """What each run of a node last said of itself: `report` of now, `history` of ten minutes."""

    node_epoch = Varchar(32, primary_key=True)
    name = Varchar(100)
    reported_at = Timestamptz()
    report = JSON()
    history = JSON()


class WebhooksTable(Table, tablename="webhooks", db=ENGINE):
    """A back end that is told what happens, and the lease of the node that tells it.

    `events` lists the types that it wants, null = all; `enterprise_id` is the tenant whose
    interviews alone it hears of. Secrets are encrypted (`data_cipher`). Logs without a row in
    `WebhookFeeds` are told from `rooms_since` and `interviews_since` on, null = that kind is not
    wanted. `failing_since`: no 2xx since then; `behind_since`: the oldest event that it lacks.
    `generation` counts the leases: who writes under an older one writes nothing. `epochs` are those
    of the database in which positions were noted or compared with the logs.
    """

    id = Varchar(32, primary_key=True)
    name = Varchar(100, unique=True)
    url = Varchar(2000)
    events = JSON(null=True, default=None)
    enterprise_id = Varchar(64, null=True, default=None)
    secret = Varchar(400)
    old_secret = Varchar(400, null=True, default=None)
    old_secret_until = Timestamptz(null=True, default=None)
    created_by = Varchar(100)
    created_at = Timestamptz()
    rooms_since = Timestamptz(null=True, default=None)
    interviews_since = Timestamptz(null=True, default=None)
    disabled_at = Timestamptz(null=True, default=None)
    disabled_reason = Varchar(20, null=True, default=None)
    failing_since = Timestamptz(null=True, default=None)
    behind_since = Timestamptz(null=True, default=None)
    last_answer = Varchar(200, null=True, default=None)
    last_answer_at = Timestamptz(null=True, default=None)
    holder = Varchar(32, null=True, default=None)
    generation = BigInt()
    epochs = JSON()
    lease_until = Timestamptz(null=True, default=None)


class WebhookFeedsTable(Table, tablename="webhook_feeds", db=ENGINE):
    """How far a log has been told to a webhook. Its key is (webhook_id, kind, feed_id).

    `position` is the last seq that was taken or is not wanted. The others say that the next event
    has failed `attempts` times since `failing_since`, and is due again at `retry_at`, or that it is
    given up until an operator says otherwise (`parked_at`).
    """

    webhook_id = Varchar(32, primary_key=True)
    kind = Varchar(10)
    feed_id = Varchar(100)
    position = BigInt()
    attempts = Integer()
    retry_at = Timestamptz(null=True, default=None)
    failing_since = Timestamptz(null=True, default=None)
    parked_at = Timestamptz(null=True, default=None)
    last_answer = Varchar(200, null=True, default=None)
