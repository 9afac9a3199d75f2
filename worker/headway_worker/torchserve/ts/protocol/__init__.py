"""`ts.protocol`: where older handlers look for some functions."""
