"""Pre-trained networks that turn pixels into bottleneck vectors."""
