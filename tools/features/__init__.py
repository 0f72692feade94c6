"""Dictionaries of features: sparse autoencoders and transcoders."""
