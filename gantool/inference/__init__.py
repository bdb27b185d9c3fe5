"""What a trained model is used for: sampling, translating, answering, animating, scoring."""
