"""The command: its arguments, its folder, the stages of a run, what it prints."""
