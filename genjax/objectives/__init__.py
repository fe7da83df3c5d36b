"""What is learned and how it generates, one family a file."""
