"""Servers to compare with: the same calls, answered by what one would build or take instead.

All answer the calls that the product answers in the comparison, in the same form, so that one
client measures all: `POST /api/interview/guest/join` makes an event, a websocket watches a room.

    ws-pg, socketio-pg   `ws` or Socket.IO, with pg and Redis: a join is durable (roster, log and
                         the room's seq, in one statement) before anybody hears of it
    ws, socketio,        the same, and Litestar's ChannelsPlugin, with joins that are kept nowhere
    channels
    fastify              REST alone, for `rest --beside-fastify`

None has presence, resuming, rate limits, tokens or a second API. That is less work than ours.
"""
