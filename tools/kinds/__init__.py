"""What an index keeps of each kind of unit: neurons, heads, features."""
