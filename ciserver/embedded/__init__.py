"""The supervisor that `ci up` is: it starts and watches real processes and imports no Django."""
