"""A whole cluster in one process and one thread, with a clock that jumps: one seed, one history.

The feeds, the hub, resuming, the repair from the log, the rules of rooms, leases, duties, reaper
and reconciler are the real ones. What is simulated is what they stand on: a database that can
be away (for one node alone, too), be late, or become another history by a failover to a standby
that was behind; a bus that loses, doubles, delays and reorders; nodes that die; clients whose
network breaks.

    virtual_time  an event loop in which waiting takes no time
    database      rooms and their logs in memory, written by the real commands
    leases        leases, duties and candidates as those tables hold them
    node          a hub with connections, its lease and its share of judging; it dies, is cut off
    client        a client as the contract asks of it: it checks each frame that it is told
    world         the plan of a seed, carried out, and the promises held against the end
    bugs          faults planted into the real cores: each must be found
    scale         large deployments laid out and counted

    python -m tests.simulation --histories 20000 --seed 1
"""
