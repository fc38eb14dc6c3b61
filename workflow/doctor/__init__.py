"""What `ptychoflow doctor` looks at before a run, one topic a file."""
