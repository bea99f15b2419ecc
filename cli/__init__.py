"""The command line: `tallylog up`, `demo`, and every part on its own."""
