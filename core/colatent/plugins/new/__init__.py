"""The package of a plugin that does not exist yet: written from templates, complete, and valid as written."""
