"""Plans: what a run costs on a slice, found by compiling it for that slice."""
