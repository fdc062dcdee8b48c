"""What is measured beside the pairing server: the plain relay, a few lines in each framework, with none of its checks.

Whoever opens /PAIR/SIDE is sent "ready", and then what the other side of the pair sends. The port is the
only argument.
"""
