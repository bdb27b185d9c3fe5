"""Training: the step, the loop, its reports, measurements and diagnoses."""
