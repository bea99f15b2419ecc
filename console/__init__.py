"""The console: the API of operators, billing and support."""
