"""Is the assistant right? Ground truth, cheating proposers, benchmarks, the trainer of the embedded model."""
