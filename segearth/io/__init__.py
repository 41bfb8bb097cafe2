"""Files and pictures: reading any image, numbers to colours, writing without losing anything; no torch."""
