"""Finding people in galleries of one's own pictures; knows nothing of the pipeline."""
