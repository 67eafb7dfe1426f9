"""A step's output on its way to the server: masked, cut into lines, spooled, shipped."""
