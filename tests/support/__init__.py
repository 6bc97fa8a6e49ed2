"""What the tests share: tolerances, the reference runner, checks of derivatives and registration, strategies."""
