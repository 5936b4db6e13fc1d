"""The coordinator: realtime rooms for video interviews, and the open API for Coze.

Three ideas carry it. The log is the truth and Redis a doorbell: a room's membership and one row per
change of it are written in one Postgres transaction, numbered without gaps, and what Redis loses is
read from the log again. Membership is not connectivity: being in a room is durable, being connected
is a row owned by a node that renews a lease. Each node holds the rooms that are open on it as
state: feeds, kept current by applying events.

Floors, each importing only downwards (a test reads the imports):

    domain      rules without I/O: who may join, what happens when a connection goes
    store       Postgres: the only folder with SQL      platforms   WeChat and ZEGO
    live        the websocket side of one node: bus, feeds, hub, connections, presence
    webhooks    telling back ends what the logs hold
    services    what the endpoints do: decide, commit, publish
    web         Litestar: the documented endpoints, and the door of the websockets
    node        one process: all `parts` built and started in order; `server`: uvicorn around it
    standins    servers and a WeChat for development
    cli         the command `coordinator`

`client` is the JavaScript client and `console` the pages: nodes serve their files.

To start reading: `domain/room_rules.py`, `store/room_writer/queue.py` (how decisions become
durable), `live/hub.py` (how everybody hears of it).
"""
