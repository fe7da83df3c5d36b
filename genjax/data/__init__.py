"""Sources read without TensorFlow, builders of prepared data sets, and batches as a function of the step."""
