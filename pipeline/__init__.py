"""The pipeline format and the words that server and agent share. Pure: no I/O, no clock."""
