"""The peers that are measured beside the pairing server: a plain relay of a few lines in each framework, without any check.

A connection to /PAIR/SIDE receives "ready", and then what the other side of the pair sends. The only argument is the port.
"""
