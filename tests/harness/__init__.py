"""What tests, chaos and load tests share: nodes that run, clients that speak the protocol, a proxy.

    node         one `coordinator serve`, and a few of them on one Postgres and one Redis
    cluster      servers, nodes and the ways between them, all of which can be hurt
    people       hosts and guests as they use the product, with what they were told
    live_client  a live connection that understands every frame
    wire         frames as bytes
    tcp_proxy    a way to a server that can hang or be cut
    http_server  a port behind the product's HTTP protocol class, in this process
    receiver     a back end that hears webhooks, and misbehaves by plan
    valkeys      Valkey as single server, sentinels and cluster;  pgbouncer  a pooler
    node_runtime tests that run in Node
    patience     how long a test waits on this machine
"""
