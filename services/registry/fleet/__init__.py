"""The state of the fleet: members, leases, last use, learned footprints, policy.

It has one writer, and does no I/O.
"""
