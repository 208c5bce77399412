"""The llama.cpp shared library through ctypes: structs, log, interruption, self-check."""
