"""What runs steps: one file per driver, all behind `agents.drivers.base`."""
