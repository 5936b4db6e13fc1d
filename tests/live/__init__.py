"""The room's websocket, as its clients find it."""
