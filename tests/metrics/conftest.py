import pytest

from gan_fast.data import load


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Networks are trained once per session and never read from a cache of an earlier version."""
    patch = pytest.MonkeyPatch()
    patch.setenv("GAN_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
    yield
    patch.undo()


@pytest.fixture(scope="session")
def digits(own_cache):
    return load("digits")
