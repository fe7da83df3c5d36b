"""Plans: estimates of what a run costs on a TPU slice, by compiling it for that slice."""
