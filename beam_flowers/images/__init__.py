"""Pictures: where they are, what they are called, and what is in them."""
