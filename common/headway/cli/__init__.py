"""The command line `headway`, and the options that every door shares.

Knows: click, the terminal, `headway`'s clients; starts the rooms' processes by name.
Must not know: anything inside a room. It imports none.
"""
