"""Pipeline files that are programs: Jsonnet, Starlark and templates, run in a limited process.

`expand.expand` is what the domain calls. `child` is the limited process; it and the languages it
runs import nothing of Django.
"""
