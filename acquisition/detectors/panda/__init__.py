"""PandA position capture: what encoders said at every trigger, by TCP from the box's data port."""
