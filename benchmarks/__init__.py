"""How fast: events/s of each stage and of all together, next to a reference in the same run."""
