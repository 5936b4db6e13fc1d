"""Load tests that an operator runs: `python -m loadtest presence` and so on.

    __main__    the command line: one sub-command per scenario
    presence fanout storm rest idle compare     the scenarios, one file each
    chaos       nodes, servers and wires break under load, every promise is checked; its world is in
                site, cables, crowd and verdict; repair measures one fault at a time
    deployment  what is tested: given URLs, or nodes that are started here and ended afterwards
    watch       a process that holds thousands of live connections and counts what they receive
    watchers    those processes, as a scenario uses them
    sockets     one live connection that understands every frame (where checking matters more)
    http        keep-alive HTTP connections, cheap enough to drive a server to its limit
    wire        websocket frames, and what a chunk of them says
    usage       who used how much CPU, and therefore whose limit a figure is
    figures     percentiles, figures, the result of a run
    screen, report      the live display and the table; the page to hand on

Each runs against any deployment (`--url`), or against one that it starts itself. Nothing here is
imported by the product. The client is written to be far cheaper than the server: what it measures
is the server's only while that is so, and `usage` decides it for every figure.
"""
