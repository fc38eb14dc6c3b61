"""Training on a running stream: what arrives, what is acknowledged, what is published and reported."""
