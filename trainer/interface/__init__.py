"""What strategies, learner and loop know of what is learnt: they know pipelines by this alone."""
