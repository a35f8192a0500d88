"""What names a result: the code that a run executes, and how it is told from other code. Torch-free."""
