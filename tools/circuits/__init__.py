"""Sets of components that carry a behaviour: found, tested and compared."""
