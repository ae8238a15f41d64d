"""Images of faces that nobody has: made under given action units, set apart, and judged."""
