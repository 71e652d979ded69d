"""dft: distributed file transfer over MPI."""

__version__ = "0.1.0"
