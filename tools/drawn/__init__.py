"""How figures are drawn as SVG."""
