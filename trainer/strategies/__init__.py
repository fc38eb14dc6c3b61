"""What each step learns from: one strategy a file."""
