"""A Grokkit plugin to copy: elementary cellular automata, one network that learns them, one gate."""
