"""Units of one model and those of another that do the same: matched by their activations on the same text, in one pass."""
