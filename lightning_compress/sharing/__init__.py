"""Weight sharing: many weights, few values, each trained by all the weights that hold it."""
