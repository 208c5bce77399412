"""`pytest -p tests.exllamav2.plugin` emulates the device for tests outside this folder too."""

from tests.exllamav2 import emulation

emulation.install()
