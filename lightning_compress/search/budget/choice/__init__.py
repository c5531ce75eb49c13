"""Choice: zeros and distinct values for a number of bytes."""
