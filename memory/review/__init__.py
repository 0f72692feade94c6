"""Pages that show the notebook to the person who started them."""
