"""Distorted copies of labelled images: a table of their own inside of a store."""
