"""The command ``recalibrate``: reads records, fits and tests maps, saves them, prints what they change."""
