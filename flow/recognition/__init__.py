"""What the files are that people bring."""
