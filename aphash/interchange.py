"""Codes from and to the formats of other libraries. Needs numpy only; a library is imported where its objects are made.

============================================  =======================================  ======================  =======
source                                        call                                     bit b of a code is      bit is 1
============================================  =======================================  ======================  =======
aphash's words: ``APHash.transform``,         none: they are codes                     bit b % 64 of word      ``>= 0``
:func:`aphash.pack_codes`                                                              b // 64
projections, rotated vectors                  ``pack_codes(Y)``,                       column b                ``>= 0``,
                                              ``pack_codes(Y, threshold="gt")``                                ``> 0``
faiss' binary indexes                         :func:`from_faiss`, :func:`to_faiss`     b % 8 of byte b // 8
their rows; ``faiss.fvecs2bitvecs``,          :func:`from_bytes`, :func:`to_bytes`     b % 8 of byte b // 8    ``>= 0``,
``faiss.real_to_binary``                                                                                       ``> 0``
usearch ``dtype="b1"``                        :func:`from_usearch`,                    b % 8 of byte b // 8
                                              :func:`to_usearch`
its rows of ``numpy.packbits``                the same, ``bitorder="big"``             7 - b % 8 of byte
                                                                                       b // 8
sentence-transformers, Cohere ``ubinary``,    :func:`from_ubinary`,                    7 - b % 8 of byte       ``> 0``
``numpy.packbits``                            :func:`to_ubinary`                       b // 8
the same in a faiss index                     ``from_faiss(..., bitorder="big")``      7 - b % 8 of byte       ``> 0``
                                                                                       b // 8
their signed ``binary``: ubinary - 128        :func:`from_binary`, :func:`to_binary`   the same, before 128    ``> 0``
                                                                                       is taken off
PostgreSQL ``bit(n)``, pgvector's             :func:`from_bit_strings`,                character b, from the   ``> 0``
``binary_quantize``                           :func:`to_bit_strings`                   left
hexadecimal text: ``str(ImageHash)``, PDQ     :func:`from_hex`, :func:`to_hex`         n_bits - 1 - b of the   the
                                                                                       number                  hash's
integers: ``int(text, 16)``,                  :func:`from_integers`,                   n_bits - 1 - b of the   the
``bit(64)::bigint``, BIGINT                   :func:`to_integers`                      number                  hash's
integers that are aphash's words              the same, ``bitorder="little"``          b of the number         ``>= 0``
``imagehash.ImageHash``                       :func:`from_imagehash`,                  element b, row by row   the
                                              :func:`to_imagehash`                                             hash's
PDQ's array: ``pdqhash.compute(image)[0]``    ``pack_codes(np.stack(rows) == 1)``      element b               the
                                                                                                               hash's
============================================  =======================================  ======================  =======

Hamming distances are the same in all of them: the order of bits does not matter, as long as database and queries have
the same one. A hash gives the same code whether it comes as text, integer, bits or ImageHash, and an embedding whether
it comes as ubinary, binary or PostgreSQL's bits. Where a vector has zeros, as after a ReLU, ``> 0`` and ``>= 0`` are
different codes.
"""

from aphash._interchange.indexes import from_faiss, from_usearch, to_faiss, to_usearch
from aphash._interchange.items import (
    from_bit_strings,
    from_hex,
    from_imagehash,
    from_integers,
    to_bit_strings,
    to_hex,
    to_imagehash,
    to_integers,
)
from aphash._interchange.rows import from_binary, from_bytes, from_ubinary, to_binary, to_bytes, to_ubinary

__all__ = [
    "from_binary",
    "from_bit_strings",
    "from_bytes",
    "from_faiss",
    "from_hex",
    "from_imagehash",
    "from_integers",
    "from_ubinary",
    "from_usearch",
    "to_binary",
    "to_bit_strings",
    "to_bytes",
    "to_faiss",
    "to_hex",
    "to_imagehash",
    "to_integers",
    "to_ubinary",
    "to_usearch",
]
