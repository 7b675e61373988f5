"""The command line: thin commands over the library, and nothing heavy imported before a command needs it."""
