"""Preparing data sets: from what their authors publish to the folders that the configs name.

A :class:`~segearth.preparation.recipe.Recipe` says what a set looks like when downloaded and what becomes of it;
recipes.json has one a set. Neither torch nor mmseg is needed.
"""
