"""Findings as files that others read, and others' explanations as hypotheses to be tested."""
