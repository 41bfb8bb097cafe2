"""The page in the browser: ``segearth app``. What it does is in session.py, what it looks like in page.py."""
