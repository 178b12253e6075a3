"""What :mod:`aphash.interchange` is made of: `rows` of bytes, `items` one by one, `indexes` of other libraries."""
