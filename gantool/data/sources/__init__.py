"""Sources of data: datasets with a name, and the user's own files."""
