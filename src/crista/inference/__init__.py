"""PREDICT: an Image -> probabilities -> label image, tile by tile, in a memory that does not grow with the image."""
