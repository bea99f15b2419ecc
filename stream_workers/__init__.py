"""Packer and counter: from producers' records to counted rows."""
