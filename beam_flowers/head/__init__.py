"""The softmax head: the split, the training recipes, its measures and the model bundle."""
