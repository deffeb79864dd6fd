"""What lies behind `scheme://` addresses; `files` is the module to import."""
