"""Draws pages for people: measures and findings with their images, as one HTML file."""
