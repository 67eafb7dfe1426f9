"""Failed steps of debug builds, kept for a while with a shell in them.

`keeper` decides and waits, `hold` knows the time, `console` is the shell's terminal, `line` the
connection to the server through which somebody sits at it.
"""
