"""The experiments that verdicts rest on: they alone open design and confirm text."""
