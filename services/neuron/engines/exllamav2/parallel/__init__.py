"""One model over several GPUs by tensor parallelism: a process for each, which step together."""
