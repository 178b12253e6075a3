"""What learning and searching share: what people bring as arrays, arguments, threads and BLAS, files, progress."""
