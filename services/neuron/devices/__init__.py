"""GPUs and the CPU: inventory, readings, NVML events, Xid faults."""
