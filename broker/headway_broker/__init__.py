"""Headway: the broker."""
