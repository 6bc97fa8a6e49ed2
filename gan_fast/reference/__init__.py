"""Every op in plain PyTorch: the oracle of the tests, the baseline of the benchmarks, the path of other devices."""
