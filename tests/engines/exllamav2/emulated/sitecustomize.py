"""Python imports this at its start where the folder is on PYTHONPATH: worker processes of tests.

Nothing happens until the engine opens its library; then the emulation comes first. The daemon,
which never opens it, stays as it is.
"""

import sys


class _BeforeTheLibrary:
    def find_spec(self, fullname, path=None, target=None):
        if fullname == "services.neuron.engines.exllamav2.library.library":
            sys.meta_path.remove(self)
            from tests.engines.exllamav2 import emulation

            emulation.install()


sys.meta_path.insert(0, _BeforeTheLibrary())
