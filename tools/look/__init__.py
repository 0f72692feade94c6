"""Tools that look: they change nothing in the model."""
