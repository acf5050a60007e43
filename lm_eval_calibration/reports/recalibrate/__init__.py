"""The command ``recalibrate``: reads records, fits and judges maps, saves them, prints what they change."""
