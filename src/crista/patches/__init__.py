"""CUT: image pairs -> samples: split, placing, cutting, normalisation, batches."""
