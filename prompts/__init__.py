"""Words for the language model: one template a purpose, with declared variables."""
