"""Transfer: a cassette made larger or finer without training, with a guarantee of what is kept."""
