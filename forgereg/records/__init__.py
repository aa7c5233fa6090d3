"""What is remembered between restarts."""
