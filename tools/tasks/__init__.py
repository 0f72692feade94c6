"""Prompt families whose right answer is known, each prompt with a corrupted twin."""
