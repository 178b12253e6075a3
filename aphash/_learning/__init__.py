"""From vectors to codes: the steps of the paper's method, in the order in which ``estimator`` calls them.

==================  ==============================================================================================
``estimator``       APHash: validates, calls the steps, keeps their results, encodes
``recipe``          every parameter of the method with its check, the presets, what "auto" means for n rows
``training_data``   the rows that learn, with the relaxed codes B
``blocks``          what is computed of a block of rows, and the sums over blocks
``linear``          PCA, rotations towards signs, the ridge hash function
``affinity``        distances -> thresholds theta -> P (sparse)
``model_file``      the file of a model
``descent``         the objective J, Adam on H and B by turns, the rounds
``safeguard``       far rows that do not learn, and bits that are replaced
==================  ==============================================================================================
"""
