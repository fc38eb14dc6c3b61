"""The steps of a training, whatever is learnt and wherever samples come from."""
