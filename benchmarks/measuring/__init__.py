"""What the benchmarks share: processes and their memory, timing, tables, labels, arithmetic of networks, synthetic volumes."""
