"""Pages for people: what was measured, with the pictures, as one HTML file."""
