"""Which units and directions tell texts that have a concept from texts that lack it, and what the directions do."""
