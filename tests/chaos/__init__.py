"""Chaos: people use several nodes while nodes, Redis, Postgres and the wires between them break.

    python -m tests.chaos --seed 7 --minutes 2
    python -m tests.chaos --mode standby --seed 7 --minutes 2
    python -m tests.chaos --measure

    plan         what breaks when, by the seed
    site         the deployment; operators: what is done to its PostgreSQL in SQL
    faults       who carries the plan out
    modes        deployments of another kind: standby, redis_kinds, pooled, versions
    client       one client's chain of connections, and what it was told
    population   hosts and guests who use them, at random
    back_end     who is told by webhooks
    run          the plan carried out under load, then the verdict
    starvation   what the machine did to the nodes beside that
    verdict      every promise, checked against the logs
    measure      how long each fault is felt, one at a time
"""
