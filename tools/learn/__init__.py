"""What is learnt from examples: how well an explanation tells what a unit does."""
