"""A student learns features from a teacher on images without labels, and takes them to another task."""
