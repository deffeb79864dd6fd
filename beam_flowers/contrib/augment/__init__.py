"""Makes distorted copies of labelled images, in a table of their own inside of a store."""
