"""Where the texts of a corpus come from, how they are put in order, and how they are kept where memory would not do."""
