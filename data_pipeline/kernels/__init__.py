"""Building blocks of compiled kernels: names of bytes, hashing, decoding, hash tables. Each stands here once."""
