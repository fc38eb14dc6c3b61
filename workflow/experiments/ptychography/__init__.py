"""`ptychoflow experiment ptychography`: strategies side by side on the same scan, perspective after perspective."""
