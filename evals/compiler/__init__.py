"""Sequence programs, and the exact transformers that compute them."""
