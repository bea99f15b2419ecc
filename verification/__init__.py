"""Verification: whether what is stored agrees with itself, and rebuilding what doesn't."""
