"""The ways of obtaining a confidence, one file each; ``registry`` lists them, ``source`` has what a file defines."""
