"""Training of the network itself on a store's labelled images."""
