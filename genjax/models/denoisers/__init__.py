"""Networks that predict noise, data or velocity from a noisy sample and a time."""
