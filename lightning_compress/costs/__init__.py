"""Costs: what a change of weights costs, and the choice of the least cost under a budget."""
