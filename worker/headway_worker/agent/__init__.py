"""The host agent: starts and stops the workers of its host when the broker asks.

Never imports torch, not even through others: it starts at once, and holds no GPU memory.
"""
