"""The edge of a scan: stitches what the network makes of every frame, and scores it."""
