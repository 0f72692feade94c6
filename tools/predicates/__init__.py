"""The hypothesis language: predicates as data, what they hold of, how they read, and the edits that test them."""
