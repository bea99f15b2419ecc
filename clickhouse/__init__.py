"""The store: shape (migrations), reads (queries), how to reach it. Imports nothing of ours."""
