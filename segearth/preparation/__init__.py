"""Preparing data sets: from what their authors publish to the folders that the configs name, and checking these.

A :class:`~segearth.preparation.recipes.Recipe` says what a set looks like when downloaded and what becomes of it;
the tables :mod:`~segearth.preparation.binary_sets`, :mod:`~segearth.preparation.colour_sets` and
:mod:`~segearth.preparation.id_sets` hold one row a set. :mod:`~segearth.preparation.sources` lists folders and zip
archives, :mod:`~segearth.preparation.pairing` puts images and labels together,
:mod:`~segearth.preparation.conversion` does the work. Neither torch nor mmseg is needed for that.
"""
