"""Servers to compare with: the same work on Socket.IO and on Litestar's ChannelsPlugin.

Both answer the calls that the product answers in the comparison, in the same form, so that one
client measures all: `POST /api/interview/guest/join` makes an event, a websocket watches a room.
They keep nothing: no database, no history, no presence. That is less work than the product does.
"""
