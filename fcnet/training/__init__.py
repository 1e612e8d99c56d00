"""Training: batches, updates, the loop, what is measured."""
