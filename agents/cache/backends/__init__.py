"""Where archives are kept: one module per kind of store."""
