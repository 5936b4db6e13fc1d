"""The JavaScript client beside socket.io-client and centrifuge-js: the same events, the same harm.

    python -m tests.compare_clients [--only coordinator,socketio,centrifuge] [--clients 50]

Two nodes of each server behind the same balancer, a Redis of its own, twenty events a second; then
a node is killed, all connections are cut, a node is frozen, Redis is killed, the network is away.
"""
