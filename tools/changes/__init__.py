"""What changed between two checkpoints of one model, beside what noise of the same size would have changed."""
