"""Tools that change an activation or the text and watch what follows."""
