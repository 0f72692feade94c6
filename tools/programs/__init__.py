"""Small models described as programs: their parts, what these read, and a plain interpreter of the description."""
