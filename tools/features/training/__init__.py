"""Training small dictionaries of features on the explore text of a target."""
