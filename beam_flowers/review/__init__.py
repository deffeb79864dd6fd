"""Looking pictures through one by one: the queue, the corrections and the local page."""
