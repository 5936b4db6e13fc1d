"""Chaos: people use several nodes while nodes, Redis, Postgres and the wires between them break.

    python -m tests.chaos --seed 7 --minutes 2
    python -m tests.chaos --measure

    faults      what breaks when: the plan of a seed, and who carries it out
    client      one client's chain of connections, and what it was told
    population  hosts and guests who use them, at random
    run         the plan carried out under load, then the verdict
    verdict     every promise, checked against the logs
    measure     how long each fault is felt, one at a time
"""
