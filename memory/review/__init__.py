"""The findings of a notebook as pages and plots."""
