"""``rnx top``: the jobs of one node on a screen that follows them."""
