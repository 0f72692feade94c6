"""The notebook as pages: claims first, the evidence second, the rows third. They answer the person who started them."""
