"""What dft achieves: the measurements, the code that takes them, the plots and the page."""
