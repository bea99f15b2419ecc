"""What Tallylog is measured against: the obvious way of doing it, with the same libraries."""
