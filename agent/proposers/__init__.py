"""Who proposes hypotheses about a unit: the built-in search of the hypothesis language, or a language model."""
