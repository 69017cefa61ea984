"""PREDICT: an Image -> probabilities -> label image, tile by tile; large results lie on disk."""
