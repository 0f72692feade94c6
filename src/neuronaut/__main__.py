"""`python -m neuronaut` is the command line."""

from neuronaut.agent.cli import main

main()
