"""Chaos: the whole program on three real brokers while processes die, networks fail and disks fill up.

`python -m tests.chaos`. A round is a story of change events, a plan of faults drawn from the round's seed, and a
reckoning afterwards that knows the rules and nothing of the program.
"""
