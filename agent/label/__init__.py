"""Labelling many units: which ones, by whom, what came of them."""
