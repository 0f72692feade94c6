"""Conversation: a language model, or the parser alone, between a person and the experiments."""
