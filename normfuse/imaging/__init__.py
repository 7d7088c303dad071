"""Image methods beside the normative path, on the same fusion core."""
