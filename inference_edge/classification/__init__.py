"""The edge of a stream of labelled images: classifies each on arrival and says how often it is right."""
