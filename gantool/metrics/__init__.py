"""How good generated images and classifiers are."""
