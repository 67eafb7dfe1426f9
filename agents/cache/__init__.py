"""The command `cache` of steps: trees kept from one build to the next, by key."""
