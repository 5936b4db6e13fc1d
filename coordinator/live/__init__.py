"""The websocket side of one node: the bus between nodes, feeds, connections, presence."""
