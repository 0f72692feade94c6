"""Small models whose attention heads are known."""
