"""What people read of logged runs: one folder a command, over shared tables, pages and sentences."""
