"""Go's text/template, as much of it as pipeline templates use.

Source: Go's text/template with drone/funcmap's SafeFuncs (reference: pipeline format, section 10).
Not there, and refused by name: functions of time, `call`, `js`, complex numbers, methods.
"""

from builds.evaluate.gotemplate.run import render

__all__ = ["render"]
