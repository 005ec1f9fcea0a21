"""Sweeps over recipes: a study is a queue of trials that any number of worker processes empty."""
