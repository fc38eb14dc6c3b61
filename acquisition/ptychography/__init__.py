"""The acquisition of a scan: frames at once, samples as their ground truth comes."""
