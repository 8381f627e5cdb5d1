"""The command line of Grokkit: parse, call the library, render."""
