"""The target model and everything that can be done to it; knows no language model and no database."""
