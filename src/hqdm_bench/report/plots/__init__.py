"""Drawing: one module a kind of figure, and one style for all of them."""
