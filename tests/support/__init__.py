"""What the tests share: tolerances, the reference runner, checks of second order and registration, hypothesis strategies."""
