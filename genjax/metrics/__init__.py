"""Measures of samples and likelihoods on the host: numpy in, double precision, plain numbers out."""
