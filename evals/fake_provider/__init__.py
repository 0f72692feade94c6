"""A server on this machine that speaks the formats of language-model services, and breaks in the ways that they do."""
