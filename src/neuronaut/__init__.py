"""Ask what a part of a language model does; get claims that survived a test, each with its evidence."""

__version__ = "0.1.0"
