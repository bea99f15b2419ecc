"""What crosses a boundary: events, blocks, rows, catalog entities, answers, errors, settings."""
