"""An op that imports and then fails, as the originals do where the plugin cannot be built."""


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    raise RuntimeError("Setting up PyTorch plugin... Failed!")
