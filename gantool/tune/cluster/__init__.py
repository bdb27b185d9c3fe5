"""Ray: a cluster to run trials on, and the search on it."""
