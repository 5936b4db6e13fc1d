"""What tests, chaos and load tests share: nodes that run, clients that speak the protocol, a proxy.

    node         one `coordinator serve`, the commands beside it; nodes on one Postgres;  ports
    fork_server  the product's command, forked from a process that has imported it
    limited      nodes whose rate limits count exactly;  tokens  JWTs as their nodes sign them
    databases    copies of a database in which every migration has run
    cluster      servers, nodes and the ways between them, all of which can be hurt
    people       hosts and guests as they use the product, with what they were told
    observing    what a test asks of a node, and of what a client was told
    promises     what was promised about time, read from the clock of the one who promised
    patience     how long a test waits on this machine
    commands     the `coordinator` command, as operators type it
    wire         websocket frames as bytes, and what a chunk of them says
    live_client  a live connection that understands every frame;  raw_socket  one that does harm
    watch        a process that holds thousands of connections (`held`), and counts;
                 watchers  those processes as a load test uses them
    http_lines   keep-alive HTTP connections, cheap enough to drive a server to its limit
    histogram    distributions of latencies;  screen  the live display of a run
    tcp_proxy    a way to a server that can hang or be cut
    bus_nodes    ends of the bus in this process, and what they hear
    http_server  a port behind the product's HTTP protocol class, in this process
    receiver     a back end that hears webhooks, and misbehaves by plan
    eager_receiver  one that takes everything at once, and counts;  webhook_admin  who manages them
    feeds        a log that answers late, and listeners that decode what they are sent
    valkeys      Valkey as single server, sentinels and cluster;  pgbouncer  a pooler;  standby
    node_runtime tests that run in Node
"""
