"""`genjax report`: one HTML page of a run or a sweep, which loads nothing from elsewhere."""
