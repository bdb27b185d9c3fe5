"""Where data come from: what can be had by name, and files of one's own."""
