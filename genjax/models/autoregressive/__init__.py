"""Networks of binary vectors, in which each entry depends on the entries before it in an order."""
