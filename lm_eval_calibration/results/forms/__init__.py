"""Other people's forms of logged answers, one module each, which makes records of what it finds."""
