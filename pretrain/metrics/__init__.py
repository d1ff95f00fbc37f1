"""What is measured while training, and where it is shown."""
