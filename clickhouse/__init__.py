"""The store: its shape (migrations), its reads (queries), how to reach it. Imports nothing of ours."""
