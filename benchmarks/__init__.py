"""pytest-benchmark faces of `gan_fast.bench`, and the report made from their records."""
