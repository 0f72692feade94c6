"""What other programs can ask for: the tools, the notebook and the experiments, without knowing any protocol."""
