"""gan_fast's build: finds the torch that will run the package, and drives CMake and Ninja against it.

Used by pip through `backend.py` (PEP 517), by `setup.py` when it is run by hand, and by `CMakeLists.txt` through
`torch_environment.py`. Standard library only, because it runs before anything is installed.
"""
