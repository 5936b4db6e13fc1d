"""Load tests that an operator runs: `python -m loadtest presence` and so on.

    __main__    the command line: one sub-command per scenario
    presence fanout storm wave rest idle webhooks compare     the scenarios, one file each
    deployment  what is tested: given URLs, or nodes that are started here and ended afterwards
    measure     what scenarios share: a run, places to watch from, one measured window
    http        drives a server with requests, as fast as answers come or at an even pace
    usage       who used how much CPU, and therefore whose limit a figure is
    figures     figures with their unit and owner, the result of a run
    screen, report      the tables at the end; the page to hand on
    peers       the servers that `compare` sets beside ours

Nodes, connections that are counted, HTTP lines and the people of `presence` are those of the tests
(`tests/harness`, `tests/chaos`).

Each runs against any deployment (`--url`), or against one that it starts itself. Nothing here is
imported by the product. The client is written to be far cheaper than the server: what it measures
is the server's only while that is so, and `usage` decides it for every figure.
"""
