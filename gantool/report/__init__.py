"""What a person reads of a search, as a page."""
