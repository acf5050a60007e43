"""The ways of obtaining a confidence, one file each; ``registry`` lists them, and ``source`` says what a file defines."""
