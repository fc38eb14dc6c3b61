"""Ways to run a network: one short file each, all with the interface of `base.Backend`."""
