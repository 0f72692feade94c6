"""neuronaut from Python: `from neuronaut import Lab`."""
