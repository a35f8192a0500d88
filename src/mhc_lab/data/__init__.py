"""What is read: corpora, their windows, and the batch of every step."""
