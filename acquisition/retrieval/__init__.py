"""Phase retrieval: one engine a file, and the worker process that runs them beside the acquisition."""
