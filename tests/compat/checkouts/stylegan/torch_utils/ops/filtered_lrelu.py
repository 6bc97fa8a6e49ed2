raise ImportError("the checkout's own op was imported: it would build a plugin")
