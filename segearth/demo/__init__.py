"""The generated world of the embedded demonstration model: scenes, captions, benchmark, training steps."""
