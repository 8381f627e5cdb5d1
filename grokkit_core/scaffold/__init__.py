"""New packages: an installable plugin with a law that works at once, to be replaced by its author's."""
