"""Measurements, side by side with what there is: ``python -m bench``, or ``make bench``."""
