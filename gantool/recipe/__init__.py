"""A recipe: everything that decides a run, in one strict YAML file."""
