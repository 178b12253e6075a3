"""Both classes over dask arrays: ``training_data`` is what learns, ``index`` what is searched."""
