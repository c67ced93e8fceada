"""PyTorch files, read without torch and without running any code in them."""
