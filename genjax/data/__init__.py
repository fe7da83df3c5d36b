"""Data: sources read without TensorFlow, builders of data sets, and batches as a function of the step."""
