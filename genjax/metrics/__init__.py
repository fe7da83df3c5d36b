"""Measures of samples on the host: numpy in, double precision, plain numbers out."""
