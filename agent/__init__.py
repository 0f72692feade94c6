"""The loop: asks, proposes, chooses tests, stops and answers; the command line; language models."""
