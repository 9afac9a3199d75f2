"""Headway: the worker."""
