"""A broadcast on more hosts than there are: dft's schedules on a simulated cluster."""
