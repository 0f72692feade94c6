"""How well an explanation tells what a unit does, by the scores that others publish, each with its flaw corrected."""
