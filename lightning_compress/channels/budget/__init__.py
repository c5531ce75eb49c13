"""How much of a model is kept: the budget, its costs, and the choice of channels that meets it."""
