"""Headway: the gateway."""
