"""The registry's own control plane under virtual time, with faults drawn from a seed."""
