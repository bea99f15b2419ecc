"""The rules of usage and money: pure, but for reads through named queries."""
