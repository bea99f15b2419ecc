"""`tallylog demo`: real events of every kind, and a table of what became of them."""
