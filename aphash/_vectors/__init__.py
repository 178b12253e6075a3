"""What a ``VectorIndex`` is made of, above learning and searching.

==================  ==============================================================================================
``state``           all that it holds at one moment, and what is asked of that
``fitting``         learn, encode, keep, calibrate
``file``            its file
==================  ==============================================================================================
"""
