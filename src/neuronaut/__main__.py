"""`python -m neuronaut` is the `neuronaut` command."""

from neuronaut.agent.cli import main

if __name__ == "__main__":
    main()
