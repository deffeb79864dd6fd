"""Serves a local page on which a person corrects labels, image by image."""
