"""A run's parts as processes: started, watched, ended in order, and each by itself."""
