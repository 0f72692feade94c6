"""Models that were saved by the code that trained them, made into Hugging Face folders."""
