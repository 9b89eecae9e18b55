"""numpy in the version that the tables were made with, on one thread so that sums have one order."""
import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
import numpy as np

assert np.__version__ == "2.4.6", f"numpy {np.__version__}; the tables were made with 2.4.6 (requirements.txt)"
