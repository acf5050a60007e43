"""Other people's forms of logged answers: one file each, which makes records of rows."""
