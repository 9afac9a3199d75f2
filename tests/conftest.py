"""Settings for all tests."""

from hypothesis import settings

# How fast something is, is measured under benchmarks/; a busy machine shall not fail a test.
settings.register_profile("headway", deadline=None)
settings.load_profile("headway")
