"""The bundled data set: synthetic pedestrians with captions, in the layouts of the real sets."""

from hpl.synthetic.write import synthesize

__all__ = ["synthesize"]
