"""How good a model is, and on which pictures that was measured: pure functions on arrays."""
