"""The control loop: decides, makes the fleet what it should be, takes in news of its members.

No I/O and no clock: time and news come in as arguments, orders go out.
"""
