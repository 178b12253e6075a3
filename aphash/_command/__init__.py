"""The command line, ``python -m aphash`` or ``aphash``. Nothing in the library imports it.

==============  =============================================================================================
``arguments``   parsers whose errors are one line, and options that commands share
``reading``     vectors, labels, ids and names out of files of the usual kinds, or of standard input
``writing``     files that a command writes: checked before any work, replaced as a whole
``terminal``    tables and notes for people: width, bold, what pipes get
``page``        one self-contained page for the browser: frame, style sheet, tables, thumbnails
``demo``, ``build``, ``search``, ``info``, ``dedup``, ``choose``: a command each, with ``parser()`` and ``run(options)``
``comparison``  what the demo measures: modes, ITQ, signs, floats
``picture``     the demo's picture
``results``     the page of a search
==============  =============================================================================================
"""
