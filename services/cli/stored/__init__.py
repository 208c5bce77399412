"""Models on the disks of a fleet, as commands show and name them."""
