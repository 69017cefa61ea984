"""READ: a file -> Image with axes, voxel size and lazy pixels; pairs, checks and the fingerprint of a data set. No torch."""
