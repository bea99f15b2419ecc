"""The catalog: accounts, API keys, features, customers; every change of them is a version."""
