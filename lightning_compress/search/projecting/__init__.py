"""Projecting: callbacks at full strength on a copy of a module, without a Trainer."""
