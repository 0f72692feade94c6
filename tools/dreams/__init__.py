"""Dreams: prompts that a search writes because they drive a unit. They are synthetic, and no claim is tested on them."""
