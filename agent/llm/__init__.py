"""Language models: one Protocol, one module for each SDK."""
