"""The generated world of the embedded demonstration model: scenes as a camera and a radar see them, their files."""
